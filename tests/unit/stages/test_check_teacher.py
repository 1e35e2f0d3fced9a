"""The stage ``check_teacher``: who may teach, and what is measured of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.data.files import read_json, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, save
from stillhouse.models.fitted import Fitted
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.check_teacher import CheckTeacherParams
from stillhouse.params.model import (
    ComputeSpec,
    CrossFittedSpec,
    EnsembleSpec,
    GruSpec,
    ItemKnnSpec,
    MemberSpec,
    TeacherSpec,
)
from stillhouse.reporting import SilentReporter
from stillhouse.stages.check_teacher import _speaks_of_its_own, check_teacher

N_ITEMS = 30
SPEC = GruSpec(kind="gru", width=32, blocks=1, length=6, dropout=0.0)
PARAMS = CheckTeacherParams(
    min_over_popularity=1.0,
    max_drop=0.3,
    min_coverage=0.5,
    repeat_items=False,
    compute=ComputeSpec(device="cpu", threads=1),
)
#: Everybody steps from item i to item i + 1, from everywhere on the ring; more people from its beginning.
STARTS = [*range(60), *range(10), *range(10)]
HISTORIES = [[(start + step) % N_ITEMS + 1 for step in range(6 + start % 3)] for start in STARTS]


class Ring(SequenceModel):
    """Knows the answer: the item after the last, by ``steps``; what it says of the rest is a slope."""

    def __init__(self, steps: int = 1) -> None:
        super().__init__(N_ITEMS, SPEC.width, SPEC.length)
        self.steps = steps

    def hidden(self, histories: torch.Tensor) -> torch.Tensor:
        ahead = (histories - 1 + self.steps) % N_ITEMS + 1
        return torch.nn.functional.one_hot(ahead, self.width).float()

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        table = torch.eye(N_ITEMS + 1, self.width) * 5.0
        return torch.nn.functional.linear(hidden, table, self.mask)


@pytest.fixture(name="night")
def _night(make_sequences: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    return make_sequences(HISTORIES, n_items=N_ITEMS, window=1)


@pytest.fixture(name="teachers")
def _teachers(monkeypatch: pytest.MonkeyPatch) -> dict[Path, SequenceModel]:
    """Models that stand in for what a checkpoint of that path holds."""
    from stillhouse.stages import check_teacher as stage

    models: dict[Path, SequenceModel] = {}
    read = stage.load

    def load(path: Path, **rest: Any) -> tuple[SequenceModel, Header]:
        model, header = read(path, **rest)
        return models.get(path, model).eval(), header

    monkeypatch.setattr(stage, "load", load)
    return models


def checkpoint(night: tuple[Path, Path], out: Path, n_items: int = N_ITEMS) -> Path:
    """Write an untrained teacher over the first ``n_items`` of the night's items."""
    words = Vocabulary.load(night[0])
    digest = Vocabulary(words.item_ids[: n_items + 1], [], words.popularity, [], [], []).digest
    save(out, build(SPEC, n_items, seed=1), Header(SPEC, n_items, digest, repeat_items=False, seed=1, warm=False))
    return out


class Notes(SilentReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(
    night: tuple[Path, Path],
    teacher: Path,
    previous: Path | None = None,
    reporter: SilentReporter | None = None,
    **params: Any,
) -> Mapping[str, Any]:
    """Run the stage."""
    if previous is None:
        write_none(previous := teacher.with_name("nothing"))
    return check_teacher(
        teacher=teacher,
        vocabulary=night[0],
        sequences=night[1],
        previous_teacher=previous,
        checked=teacher.with_name("checked.json"),
        timings=teacher.with_name("timings.json"),
        params=PARAMS.model_copy(update=params),
        reporter=reporter or SilentReporter(),
    )


def test_a_good_teacher_passes_and_is_measured(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    teachers[checkpoint(night, tmp_path / "teacher")] = Ring()
    found = run(night, tmp_path / "teacher")
    assert found["ndcg_at_10"] == 1.0
    assert found["popularity_ndcg_at_10"] < 0.6
    assert found["popularity_ndcg_at_10"] > 0.0
    assert found["coverage_at_10"] > 0.9
    assert found["previous_ndcg_at_10"] is None
    for protocol in ("leave_one_out", "time_window"):
        assert found[protocol]["ndcg_at_10"] == found[protocol]["hr_at_10"] == 1.0
        assert found[protocol]["users"] == 80
    assert found["popularity"]["leave_one_out"]["ndcg_at_10"] < 0.6
    assert found["bytes"] == (tmp_path / "teacher" / "model.safetensors").stat().st_size
    assert found["parameters"] > found["parameters_without_embeddings"]
    checked = read_json(tmp_path / "checked.json")
    assert checked["passed"] is True
    assert checked["ndcg_at_10"] == 1.0
    assert checked["train_ndcg_at_10"] == checked["train_over_valid"] == 1.0
    assert set(read_json(tmp_path / "timings.json")) == {
        *("p50_ms", "p99_ms", "latency_threads", "requests", "batch_per_s", "threads")
    }


def test_without_a_window_there_are_no_figures_of_it(
    make_sequences: Callable[..., tuple[Path, Path]], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    night = make_sequences(HISTORIES, n_items=N_ITEMS, name="plain")
    teachers[checkpoint(night, tmp_path / "teacher")] = Ring()
    assert run(night, tmp_path / "teacher")["time_window"] is None


def test_a_teacher_below_popularity_is_stopped_and_leaves_no_report(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    teachers[checkpoint(night, tmp_path / "teacher")] = Ring(steps=15)
    with pytest.raises(TrainingError, match=r"must be at least 1 times popularity's 0\.[^,]*, got 0\.0000"):
        run(night, tmp_path / "teacher")
    assert not (tmp_path / "checked.json").exists()


def test_a_collapsed_teacher_is_stopped(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    class Collapsed(Ring):
        def hidden(self, histories: torch.Tensor) -> torch.Tensor:
            return super().hidden(torch.ones_like(histories))

    teachers[checkpoint(night, tmp_path / "teacher")] = Collapsed()
    with pytest.raises(TrainingError, match=r"must cover at least 99.0% of the items, got .*: it collapsed"):
        run(night, tmp_path / "teacher", min_over_popularity=0.0, min_coverage=0.99)


def test_a_teacher_that_fell_behind_last_nights_is_stopped(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    teachers[checkpoint(night, tmp_path / "teacher")] = Ring(steps=2)
    teachers[checkpoint(night, tmp_path / "previous")] = Ring()
    with pytest.raises(TrainingError, match=r"must not fall by more than 30% of last night's 1\.0000, got 0\."):
        run(night, tmp_path / "teacher", tmp_path / "previous", min_over_popularity=0.0)
    found = run(night, tmp_path / "teacher", tmp_path / "previous", min_over_popularity=0.0, max_drop=1.0)
    assert found["previous_ndcg_at_10"] == 1.0


def test_items_that_last_nights_teacher_lacks_are_misses_for_it(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    """Half of the ring is new tonight: even a perfect teacher of last night cannot name it."""

    class Half(Ring):
        def forward(self, histories: torch.Tensor) -> torch.Tensor:
            assert int(histories.max()) <= N_ITEMS // 2
            return super().forward(histories)[:, : N_ITEMS // 2 + 1]

    teachers[checkpoint(night, tmp_path / "teacher")] = Ring()
    teachers[checkpoint(night, tmp_path / "previous", N_ITEMS // 2)] = Half()
    assert 0.1 < run(night, tmp_path / "teacher", tmp_path / "previous")["previous_ndcg_at_10"] < 0.7


def test_scores_that_are_not_finite_are_stopped(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    class Diverged(Ring):
        def scores(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().scores(hidden) * torch.nan

    teachers[checkpoint(night, tmp_path / "teacher")] = Diverged()
    with pytest.raises(TrainingError, match="a teacher's scores must be finite"):
        run(night, tmp_path / "teacher")


def test_a_teacher_that_remembers_its_training_rows_is_told_from_one_that_knows(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    """Trained positions of these histories end at the fourth event or before, validation's later."""

    class Remembers(Ring):
        def hidden(self, histories: torch.Tensor) -> torch.Tensor:
            right = super().hidden(histories)
            return torch.where(torch.arange(histories.shape[1])[:, None] < 3, right, right.roll(7, dims=2))

    teachers[checkpoint(night, tmp_path / "teacher")] = Remembers()
    heard = Notes()
    found = run(night, tmp_path / "teacher", reporter=heard, min_over_popularity=0.0, min_coverage=0.0)
    assert found["train_ndcg_at_10"] > 1.3 * found["ndcg_at_10"]
    assert found["train_over_valid"] == found["train_ndcg_at_10"] / found["ndcg_at_10"]
    assert [f"{found['train_over_valid']:.2f} times" in note for note in heard.notes if "cross_fitted" in note] == [
        True
    ]


def test_one_that_is_as_good_elsewhere_is_not_advised(
    night: tuple[Path, Path], teachers: dict[Path, SequenceModel], tmp_path: Path
) -> None:
    teachers[checkpoint(night, tmp_path / "teacher")] = Ring()
    heard = Notes()
    run(night, tmp_path / "teacher", reporter=heard)
    assert heard.notes
    assert not any("cross_fitted" in note for note in heard.notes)


@pytest.mark.parametrize(
    ("spec", "its_own"),
    [
        (SPEC, True),
        (CrossFittedSpec(kind="cross_fitted", folds=2, model=SPEC), False),
        (ItemKnnSpec(kind="item_knn", length=6, decay=0.8), False),
    ],
)
def test_who_is_asked_about_strangers_alone_is_not_advised_to_be(spec: TeacherSpec, its_own: bool) -> None:
    assert _speaks_of_its_own(spec) is its_own
    members = {
        "one": MemberSpec(model=spec),
        "knn": MemberSpec(model=ItemKnnSpec(kind="item_knn", length=6, decay=0.8)),
    }
    assert _speaks_of_its_own(EnsembleSpec(kind="ensemble", members=members)) is its_own


def test_a_teacher_of_several_models_is_measured_as_one(night: tuple[Path, Path], tmp_path: Path) -> None:
    members = {"knn": ItemKnnSpec(kind="item_knn", length=6, folds=2, decay=0.8), "net": SPEC}
    spec = EnsembleSpec(kind="ensemble", members={name: MemberSpec(model=one) for name, one in members.items()})
    words, model = Vocabulary.load(night[0]), build(spec, N_ITEMS, seed=1)
    for part in model.modules():
        if isinstance(part, Fitted):
            part.fit(Sequences.open(night[1]))
    header = Header(spec, N_ITEMS, words.digest, repeat_items=False, seed=1, warm=False)
    save(tmp_path / "teacher", model, header)
    found = run(night, tmp_path / "teacher")
    files = list((tmp_path / "teacher").rglob("*.safetensors"))
    assert len(files) == 3
    assert found["bytes"] == sum(file.stat().st_size for file in files)
    assert found["ndcg_at_10"] > 0.9
