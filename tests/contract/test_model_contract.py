"""What every model must do, whatever its architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stillhouse.data.sequences import Sequences
from stillhouse.distill.hard import HardObjective
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, load, save
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import ComputeSpec, GruSpec, ModelSpec, TrainingSpec, TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train.job import Job
from stillhouse.train.loop import train

N_ITEMS = 12
LENGTH = 6
SPECS: dict[str, ModelSpec] = {
    "transformer": TransformerSpec(kind="transformer", width=16, blocks=2, heads=2, length=LENGTH, dropout=0.1),
    "gru": GruSpec(kind="gru", width=16, blocks=2, length=LENGTH, dropout=0.1),
}
HISTORIES = torch.tensor([[1, 2, 3, 0, 0, 0], [5, 4, 3, 2, 1, 6], [7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


@pytest.fixture(params=SPECS, name="spec")
def _spec(request: pytest.FixtureRequest) -> ModelSpec:
    return SPECS[request.param]


@pytest.fixture(name="model")
def _model(spec: ModelSpec) -> SequenceModel:
    return build(spec, N_ITEMS, seed=3).eval()


@torch.no_grad()
def test_a_batch_equals_its_single_rows(model: SequenceModel) -> None:
    rows = torch.cat([model(row[None]) for row in HISTORIES])
    torch.testing.assert_close(model(HISTORIES), rows, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing(model: SequenceModel) -> None:
    torch.testing.assert_close(model(HISTORIES[:1, :3]), model(HISTORIES[:1]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_an_event_changes_nothing_before_it(model: SequenceModel) -> None:
    changed = HISTORIES.clone()
    changed[1, 4:] = torch.tensor([9, 10])
    before, after = model.hidden(HISTORIES), model.hidden(changed)
    torch.testing.assert_close(before[1, :4], after[1, :4], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(before[1, 4:], after[1, 4:])


@torch.no_grad()
def test_the_order_of_events_matters(model: SequenceModel) -> None:
    turned = torch.tensor([[3, 2, 1]]), torch.tensor([[1, 2, 3]])
    assert not torch.allclose(model(turned[0])[:, 1:], model(turned[1])[:, 1:])


@torch.no_grad()
def test_forward_gives_the_scores_at_the_last_event(model: SequenceModel) -> None:
    everywhere = model.scores(model.hidden(HISTORIES))
    assert everywhere.shape == (4, LENGTH, N_ITEMS + 1)
    torch.testing.assert_close(model(HISTORIES)[:3], everywhere[torch.arange(3), torch.tensor([2, 5, 0])])


@torch.no_grad()
def test_the_padding_column_is_masked_and_all_others_are_finite(model: SequenceModel) -> None:
    scores = model(HISTORIES)
    assert scores.shape == (4, N_ITEMS + 1)
    assert bool(torch.isneginf(scores[:, 0]).all())
    assert bool(scores[:, 1:].isfinite().all())


def test_scores_in_training_are_those_of_evaluation(model: SequenceModel) -> None:
    hidden = model.hidden(HISTORIES)
    torch.testing.assert_close(model.train().scores(hidden), model.eval().scores(hidden), atol=1e-6, rtol=1e-5)


def test_training_moves_every_weight_but_the_padding_row(model: SequenceModel) -> None:
    model.train()
    scores = model.scores(model.hidden(HISTORIES[:3]))
    torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.randint(1, N_ITEMS + 1, (3 * LENGTH,))).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
        assert bool((weight.grad != 0).any()), name
    assert model.items.weight.grad is not None
    assert not model.items.weight.grad[0].any()


def test_equal_seeds_build_equal_models_and_leave_torchs_generator_alone(spec: ModelSpec) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build(spec, N_ITEMS, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["items.weight"], other["items.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


@torch.no_grad()
def test_save_then_load_is_equal_and_equal_models_give_equal_bytes(
    spec: ModelSpec, model: SequenceModel, tmp_path: Path
) -> None:
    header = Header(spec, N_ITEMS, "digest", repeat_items=False, seed=3, warm=False)
    save(tmp_path / "one", model, header)
    save(tmp_path / "two", build(spec, N_ITEMS, seed=3), header)
    loaded, found = load(tmp_path / "one", vocabulary="digest")
    assert found == header
    assert torch.equal(loaded(HISTORIES), model(HISTORIES))
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_planted_pattern_is_learnt(
    spec: ModelSpec, make_sequences: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    """Everybody walks round a ring of items: what comes next is certain."""
    _, folder = make_sequences([[(start + step) % N_ITEMS + 1 for step in range(9)] for start in range(48)])
    training = TrainingSpec(epochs=25, batch_size=8, learning_rate=0.01, warmup_steps=5, patience=25)
    job = Job(
        objective=HardObjective(),
        sequences=Sequences.open(folder),
        training=training,
        compute=ComputeSpec(device="cpu", threads=1),
        seed=1,
        warm=False,
        resume=tmp_path,
        where="train_teacher.training",
    )
    model = build(spec, N_ITEMS, seed=1)
    assert train(model, job, SilentReporter()).ndcg_at_10 > 0.99
    assert model(torch.tensor([[3, 4, 5, 0, 0, 0]])).argmax().item() == 6
