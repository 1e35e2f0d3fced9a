"""What every model must do, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch

from stillhouse.data.files import sha256_tree, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, load, save
from stillhouse.models.fitted import Fitted
from stillhouse.models.folds import fold_of
from stillhouse.models.protocol import Recommender, SequenceModel
from stillhouse.models.queries import best_product
from stillhouse.params.agreement import has_item_table
from stillhouse.params.model import (
    BidirectionalSpec,
    ComputeSpec,
    CrossFittedSpec,
    EaseSpec,
    EnsembleSpec,
    GruSpec,
    ItemKnnSpec,
    MemberSpec,
    PopularitySpec,
    TeacherSpec,
    TrainingSpec,
    TransformerSpec,
)
from stillhouse.reporting import SilentReporter
from stillhouse.train.night import Apprentice
from stillhouse.train.teacher import train_recommender

N_ITEMS = 12
LENGTH = 6
TRANSFORMER = TransformerSpec(kind="transformer", width=16, blocks=2, heads=2, length=LENGTH, dropout=0.1)
CROSS_FITTED = CrossFittedSpec(kind="cross_fitted", folds=2, model=TRANSFORMER)
KNN = ItemKnnSpec(kind="item_knn", length=LENGTH, folds=3, decay=0.8, shrink=1.0)
EASE = EaseSpec(kind="ease", length=LENGTH, folds=3, decay=0.9, l2=1.0)
SPECS: dict[str, TeacherSpec] = {
    "transformer": TRANSFORMER,
    "gru": GruSpec(kind="gru", width=16, blocks=2, length=LENGTH, dropout=0.1),
    # A code for each item: with fewer, items that the same people take are told apart by a processor's rounding alone.
    "few bits": GruSpec(
        kind="gru", width=16, blocks=1, length=LENGTH, dropout=0.1, weights="int8", items={"splits": 4, "codes": 12}
    ),
    "many queries": TransformerSpec(
        kind="transformer", width=16, blocks=1, heads=2, length=LENGTH, dropout=0.1, queries=3, positions="rotary"
    ),
    "gated": TransformerSpec(
        kind="transformer", width=16, blocks=2, heads=1, length=LENGTH, dropout=0.1, norm="after", gated=True
    ),
    "asking gru": GruSpec(kind="gru", width=16, blocks=1, length=LENGTH, dropout=0.1, queries=2),
    "bidirectional": BidirectionalSpec(
        kind="bidirectional", width=16, blocks=2, heads=2, length=LENGTH, dropout=0.1, last_share=1.0
    ),
    "item_knn": KNN,
    "ease": EASE,
    "popularity": PopularitySpec(kind="popularity", length=LENGTH, folds=3),
    "cross_fitted": CROSS_FITTED,
    "ensemble": EnsembleSpec(
        kind="ensemble",
        members={name: MemberSpec(model=spec) for name, spec in {"knn": KNN, "net": TRANSFORMER}.items()},
    ),
    "ensemble by confidence": EnsembleSpec(
        kind="ensemble",
        combine="confidence",
        members={name: MemberSpec(model=spec) for name, spec in {"fair": CROSS_FITTED, "knn": KNN}.items()},
    ),
}
TRAINED = [name for name, spec in SPECS.items() if hasattr(spec, "dropout")]
HISTORIES = torch.tensor([[1, 2, 3, 0, 0, 0], [5, 4, 3, 2, 1, 6], [7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
#: Numbers of the last positions of the first three rows.
LAST = torch.tensor([2, 8, 9])
USERS = torch.tensor([0, 1, 2, 3])
Make = Callable[..., tuple[Path, Path]]


def walks(last_of_user_2: int = 0) -> list[list[int]]:
    """Return walks of 60 users, each round and round one of three blocks of four items."""
    found = [[user % 3 * 4 + (user // 3 + step) % 4 + 1 for step in range(6 + user % 4)] for user in range(60)]
    found[2][-3] = last_of_user_2 or found[2][-3]  # its last training event
    return found


@pytest.fixture(name="night")
def _night(make_sequences: Make) -> tuple[Path, Path]:
    return make_sequences(walks(), n_items=N_ITEMS, repeat_items=True)


@pytest.fixture(params=SPECS, name="spec")
def _spec(request: pytest.FixtureRequest) -> TeacherSpec:
    return SPECS[request.param]


@pytest.fixture(name="model")
def _model(spec: TeacherSpec, night: tuple[Path, Path]) -> Recommender:
    return prepared(spec, night[1])


@pytest.fixture(params=TRAINED, name="sequence_model")
def _sequence_model(request: pytest.FixtureRequest) -> SequenceModel:
    return build(SPECS[request.param], N_ITEMS, seed=3).eval()


def prepared(spec: TeacherSpec, sequences: Path, seed: int = 3) -> Recommender:
    """Return a model whose closed forms are fitted and whose other weights are fresh."""
    model = build(spec, N_ITEMS, seed=seed).eval()
    for part in model.modules():
        if isinstance(part, Fitted):
            part.fit(Sequences.open(sequences))
    return model


def test_every_kind_that_a_teacher_may_be_is_held_to_this_contract() -> None:
    kinds = get_args(get_args(TeacherSpec)[0])
    assert {get_args(kind.model_fields["kind"].annotation)[0] for kind in kinds} == {
        spec.kind for spec in SPECS.values()
    }


@torch.no_grad()
@pytest.mark.parametrize("users", [None, USERS], ids=["held out", "trained on"])
def test_a_batch_equals_its_single_rows(model: Recommender, users: torch.Tensor | None) -> None:
    rows = [model(HISTORIES[[row]], None if users is None else users[[row]]) for row in range(len(HISTORIES))]
    torch.testing.assert_close(model(HISTORIES, users), torch.cat(rows), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing(model: Recommender) -> None:
    torch.testing.assert_close(model(HISTORIES[:1, :3]), model(HISTORIES[:1]), atol=1e-6, rtol=1e-5)
    positions = model.position_scores(HISTORIES[:1, :3]), model.position_scores(HISTORIES[:1])
    torch.testing.assert_close(*positions, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_an_event_changes_nothing_before_it(spec: TeacherSpec, model: Recommender) -> None:
    changed = HISTORIES.clone()
    changed[1, 4:] = torch.tensor([9, 10])
    before, after = model.position_scores(HISTORIES), model.position_scores(changed)
    torch.testing.assert_close(before[:7], after[:7], atol=1e-6, rtol=1e-5)
    if spec.kind != "popularity":  # which looks at no history
        assert not torch.allclose(before[7:9], after[7:9])


@torch.no_grad()
def test_the_order_of_events_matters(spec: TeacherSpec, model: Recommender) -> None:
    turned = torch.tensor([[3, 2, 1]]), torch.tensor([[1, 2, 3]])
    same = torch.allclose(model(turned[0])[:, 1:], model(turned[1])[:, 1:])
    assert same == (spec.kind == "popularity")


@torch.no_grad()
@pytest.mark.parametrize("users", [None, USERS], ids=["held out", "trained on"])
def test_the_last_position_is_scored_as_the_whole_history(model: Recommender, users: torch.Tensor | None) -> None:
    everywhere = model.position_scores(HISTORIES, users)
    assert everywhere.shape == (10, N_ITEMS + 1)
    torch.testing.assert_close(everywhere[LAST], model(HISTORIES, users)[:3], atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("users", [None, USERS], ids=["held out", "trained on"])
def test_some_positions_are_scored_as_all_are(model: Recommender, users: torch.Tensor | None) -> None:
    everywhere, score = model.position_scores(HISTORIES, users), model.position_scorer(HISTORIES, users)
    for some in (slice(2, 5), slice(9, 10), slice(4, 4), LAST):
        torch.testing.assert_close(score(some), everywhere[some], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_padding_column_is_masked_and_all_others_are_finite(model: Recommender) -> None:
    for scores in (model(HISTORIES), model(HISTORIES, USERS), model.position_scores(HISTORIES, USERS)):
        assert scores.shape[1] == N_ITEMS + 1
        assert bool(torch.isneginf(scores[:, 0]).all())
        assert bool(scores[:, 1:].isfinite().all())


@torch.no_grad()
def test_states_and_item_table_make_the_scores_where_there_are_any(spec: TeacherSpec, model: Recommender) -> None:
    states, table = model.position_hidden(HISTORIES), model.item_table()
    assert (states is None) == (not isinstance(model, SequenceModel))
    assert states is None or table is not None
    assert (table is not None) == has_item_table(spec), "params.yaml is refused by what the kind has"
    assert table is None or len(table) == N_ITEMS + 1
    for users in (None, USERS):
        kept = model.position_scorer(HISTORIES, users).states
        assert kept is states is None or torch.equal(kept, states)
    if states is not None and table is not None:
        expected = model.position_scores(HISTORIES)[:, 1:]
        torch.testing.assert_close(best_product(states, table)[:, 1:], expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_what_a_user_did_last_reaches_that_users_own_scores_by_no_way(
    spec: TeacherSpec, night: tuple[Path, Path], make_sequences: Make
) -> None:
    """The last training event is no input at any trained position: only weights could know it."""
    other = make_sequences(walks(last_of_user_2=1), n_items=N_ITEMS, repeat_items=True, name="other")
    one, two = prepared(spec, night[1]), prepared(spec, other[1])
    inputs = torch.tensor([walks()[2][:-3]])
    user = torch.tensor([2])
    assert torch.equal(one.position_scores(inputs, user), two.position_scores(inputs, user))
    if any(isinstance(part, Fitted) for part in one.modules()):  # with all it knows, it does know
        assert not torch.equal(one.position_scores(inputs), two.position_scores(inputs))
        stranger = torch.tensor([next(u for u in range(60) if fold_of(torch.tensor(u), 3) != fold_of(user, 3))])
        assert not torch.equal(one.position_scores(inputs, stranger), two.position_scores(inputs, stranger))


def test_scores_in_training_are_those_of_evaluation(sequence_model: SequenceModel) -> None:
    hidden = sequence_model.hidden(HISTORIES)
    trained, evaluated = sequence_model.train().scores(hidden), sequence_model.eval().scores(hidden)
    torch.testing.assert_close(trained, evaluated, atol=1e-6, rtol=1e-5)


def test_training_moves_every_weight_but_the_padding_row(sequence_model: SequenceModel) -> None:
    targets = torch.randint(1, N_ITEMS + 1, (int((HISTORIES != 0).sum()),))
    states, chosen = sequence_model.train().training_states(HISTORIES[:3], targets)
    wanted = targets if chosen is None else targets[chosen]
    torch.nn.functional.cross_entropy(sequence_model.scores(states), wanted).backward()
    for name, weight in sequence_model.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
        assert bool((weight.grad != 0).any()), name
    torch.optim.SGD(sequence_model.parameters(), lr=1.0).step()
    assert not sequence_model.items.weight[0].any()


def test_equal_seeds_make_equal_models_and_leave_torchs_generator_alone(
    spec: TeacherSpec, night: tuple[Path, Path]
) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (prepared(spec, night[1], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if name.endswith("items.weight")]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)
    assert torch.equal(before, torch.random.get_rng_state())


@torch.no_grad()
def test_save_then_load_is_equal_and_equal_models_give_equal_bytes(
    spec: TeacherSpec, model: Recommender, night: tuple[Path, Path], tmp_path: Path
) -> None:
    header = Header(spec, N_ITEMS, "digest", repeat_items=False, seed=3, warm=False)
    save(tmp_path / "one", model, header)
    save(tmp_path / "two", prepared(spec, night[1]), header)
    loaded, found = load(tmp_path / "one", vocabulary="digest")
    assert found == header
    assert torch.equal(loaded(HISTORIES), model(HISTORIES))
    assert torch.equal(loaded(HISTORIES, USERS), model(HISTORIES, USERS))
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_a_planted_pattern_is_learnt(spec: TeacherSpec, night: tuple[Path, Path], tmp_path: Path) -> None:
    """Everybody goes round a block of four: after three of them the fourth is what is left."""
    write_none(tmp_path / "nothing")
    (tmp_path / "resume").mkdir()
    apprentice = Apprentice(
        spec=spec,
        training=TrainingSpec(epochs=40, batch_size=16, learning_rate=0.02, warmup_steps=5, patience=12),
        compute=ComputeSpec(device="cpu", threads=1),
        seed=1,
        previous=tmp_path / "nothing",
        where="train_teacher.training",
    )
    figures = train_recommender(
        apprentice,
        Vocabulary.load(night[0]),
        Sequences.open(night[1]),
        resume=tmp_path / "resume",
        checkpoint=tmp_path / "made",
        reporter=SilentReporter(),
    )
    histories = torch.tensor([[1, 2, 3], [7, 8, 5], [12, 9, 10]])
    with torch.no_grad():
        scores = load(tmp_path / "made")[0](histories).scatter(1, histories, -torch.inf)
    if spec.kind == "popularity":  # all items are equally popular: it knows no histories
        assert figures["valid_ndcg_at_10"] < 0.5
        return
    assert scores.argmax(dim=1).tolist() == [4, 6, 11]
    if spec.kind not in ("ease", "item_knn"):  # which were not made to tell what comes next from what was
        assert figures["valid_ndcg_at_10"] > 0.99
