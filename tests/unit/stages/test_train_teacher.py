"""The stage ``train_teacher``, on a night of seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.data.files import sha256_tree, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError, TrainingError
from stillhouse.models.checkpoint import load
from stillhouse.models.warm import load_grown
from stillhouse.params.model import ComputeSpec, TrainingSpec, TransformerSpec
from stillhouse.params.train_teacher import TrainTeacherParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.train_teacher import train_teacher

PARAMS = TrainTeacherParams(
    model=TransformerSpec(kind="transformer", width=8, blocks=1, heads=2, length=6, dropout=0.1),
    training=TrainingSpec(epochs=3, warm_epochs=1, batch_size=16, learning_rate=0.01, warmup_steps=2),
    seed=1,
    repeat_items=False,
    compute=ComputeSpec(device="cpu", threads=1),
)
Make = Callable[..., tuple[Path, Path]]


class Notes(SilentReporter):
    """Keeps its notes."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(name="night")
def _night(make_sequences: Make) -> tuple[Path, Path]:
    return make_sequences(_histories(12))


def run(
    night: tuple[Path, Path], out: Path, previous: Path | None = None, reporter: Any = None, **params: Any
) -> Mapping[str, Any]:
    """Run the stage into ``out``."""
    (resume := out.with_name(f"{out.name}_resume")).mkdir()
    if previous is None:
        write_none(previous := out.with_name(f"{out.name}_previous"))
    return train_teacher(
        vocabulary=night[0],
        sequences=night[1],
        previous_teacher=previous,
        teacher=out,
        resume=resume,
        params=PARAMS.model_copy(update=params),
        reporter=reporter or SilentReporter(),
    )


def test_a_teacher_is_trained_and_its_checkpoint_says_what_it_belongs_to(
    night: tuple[Path, Path], tmp_path: Path
) -> None:
    found = run(night, tmp_path / "teacher")
    assert found["start"] == "cold"
    assert found["epochs"] == 3
    assert 0.0 <= found["valid_ndcg_at_10"] <= 1.0
    assert found["loss"] == found["hard_loss"]
    digest = json.loads((night[0] / "vocabulary.json").read_text())["digest"]
    model, header = load(tmp_path / "teacher", vocabulary=digest)
    assert (header.n_items, header.seed, header.warm, header.repeat_items) == (12, 1, False, False)
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 13)


def test_two_runs_give_the_same_bytes_and_figures(night: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(night, tmp_path / "one") == run(night, tmp_path / "two")
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_another_seed_gives_other_bytes(night: tuple[Path, Path], tmp_path: Path) -> None:
    run(night, tmp_path / "one")
    run(night, tmp_path / "two", seed=2)
    assert sha256_tree(tmp_path / "one") != sha256_tree(tmp_path / "two")


def test_last_nights_teacher_is_the_start_when_the_catalogue_has_grown(
    night: tuple[Path, Path], make_sequences: Make, tmp_path: Path
) -> None:
    run(night, tmp_path / "monday")
    grown, notes = make_sequences(_histories(14), name="tuesday"), Notes()
    found = run(grown, tmp_path / "tuesday_teacher", tmp_path / "monday", notes)
    assert (found["start"], found["epochs"]) == ("warm", 1)
    assert "warm start from last night's weights, 2 new items" in notes.heard
    assert load(tmp_path / "tuesday_teacher")[1].warm


def test_a_new_item_starts_by_what_stood_next_to_it(
    night: tuple[Path, Path], make_sequences: Make, tmp_path: Path
) -> None:
    run(night, tmp_path / "monday")
    grown = make_sequences(_histories(14), name="tuesday")
    still = PARAMS.training.model_copy(update={"learning_rate": 1e-9})
    run(grown, tmp_path / "tuesday_teacher", tmp_path / "monday", training=still)
    ids, events = Vocabulary.load(grown[0]).item_ids, Sequences.open(grown[1])
    by_neighbours, by_nothing = (load_grown(tmp_path / "monday", ids, some, seed=1)[0] for some in (events, None))
    table = load(tmp_path / "tuesday_teacher")[0].item_table()
    torch.testing.assert_close(table, by_neighbours.item_table(), rtol=0.0, atol=1e-5)
    assert not torch.allclose(by_neighbours.item_table(), by_nothing.item_table(), rtol=0.0, atol=1e-3)


def test_a_changed_model_starts_cold_and_says_why(night: tuple[Path, Path], tmp_path: Path) -> None:
    run(night, tmp_path / "monday")
    notes = Notes()
    found = run(night, tmp_path / "tuesday", tmp_path / "monday", notes, model=_spec(width=12))
    assert found["start"] == "cold"
    assert "cold start: the model changed: width 8 → 12" in notes.heard


def test_another_dropout_rate_stays_warm_and_is_written_down(night: tuple[Path, Path], tmp_path: Path) -> None:
    run(night, tmp_path / "monday")
    found = run(night, tmp_path / "tuesday", tmp_path / "monday", model=_spec(dropout=0.4))
    assert found["start"] == "warm"
    assert load(tmp_path / "tuesday")[1].spec.dropout == 0.4


def test_sequences_of_another_repeat_items_are_refused(night: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got true for sequences of false \(params.yaml: repeat_items\)"):
        run(night, tmp_path / "teacher", repeat_items=True)


def test_a_vocabulary_of_another_night_is_refused(
    night: tuple[Path, Path], make_sequences: Make, tmp_path: Path
) -> None:
    other = make_sequences(_histories(14), name="other")
    with pytest.raises(DataError, match="must be of one night"):
        run((other[0], night[1]), tmp_path / "teacher")


def test_nothing_is_left_where_training_fails(make_sequences: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least one user with two training events"):
        run(make_sequences([[1, 2]]), tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def _spec(**change: Any) -> TransformerSpec:
    return PARAMS.model.model_copy(update=change)  # type: ignore[return-value]


def _histories(n_items: int) -> list[list[int]]:
    return [[(start + step) % n_items + 1 for step in range(7)] for start in range(30)]
