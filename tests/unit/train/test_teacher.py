"""Teachers of every kind: made once, gone on with after a kill, and started from last night's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.data.files import sha256_tree, write_none
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import TrainingError
from stillhouse.models.checkpoint import load
from stillhouse.models.folds import fold_of
from stillhouse.params.model import (
    ComputeSpec,
    CrossFittedSpec,
    EnsembleSpec,
    GruSpec,
    ItemKnnSpec,
    MemberSpec,
    TeacherSpec,
    TrainingSpec,
)
from stillhouse.reporting import SilentReporter
from stillhouse.train import teacher
from stillhouse.train.night import Apprentice
from stillhouse.train.teacher import train_recommender

Make = Callable[..., tuple[Path, Path]]
GRU = GruSpec(kind="gru", width=4, blocks=1, length=6, dropout=0.1)
KNN = ItemKnnSpec(kind="item_knn", length=6, folds=2, decay=0.8)
TRAINING = TrainingSpec(epochs=2, warm_epochs=1, batch_size=16, learning_rate=0.01, warmup_steps=2)
ENSEMBLE = EnsembleSpec(
    kind="ensemble",
    members={
        "one": MemberSpec(model=GRU),
        "other": MemberSpec(model=GRU, training=TRAINING.model_copy(update={"epochs": 3})),
        "knn": MemberSpec(model=KNN),
    },
)


class Listener(SilentReporter):
    """Keeps what it hears, and dies where it is told to."""

    def __init__(self, dies_at: str = "") -> None:
        self.notes: list[str] = []
        self.named: set[str] = set()
        self.dies_at = dies_at

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.named |= set(values)

    def note(self, text: str) -> None:
        self.notes.append(text)
        if self.dies_at and self.dies_at in text:
            raise KeyboardInterrupt


@pytest.fixture(name="make")
def _make(make_sequences: Make, tmp_path: Path) -> Callable[..., Mapping[str, Any]]:
    def make(name: str, spec: TeacherSpec, *, previous: str = "", n_items: int = 12, **rest: Any) -> Mapping[str, Any]:
        walks = [[(start + step) % n_items + 1 for step in range(5 + start % 4)] for start in range(40)]
        words, events = make_sequences(walks, n_items=n_items, name=f"night-of-{n_items}")
        if not previous:
            write_none(tmp_path / "nothing")
        (tmp_path / f"{name}-resume").mkdir(exist_ok=True)
        return train_recommender(
            Apprentice(
                spec, TRAINING, ComputeSpec(device="cpu", threads=1), 1, tmp_path / (previous or "nothing"), "there"
            ),
            Vocabulary.load(words),
            Sequences.open(events),
            resume=tmp_path / f"{name}-resume",
            checkpoint=tmp_path / name,
            reporter=rest.get("reporter", SilentReporter()),
        )

    return make


def test_an_ensemble_says_how_each_member_went(make: Callable[..., Mapping[str, Any]], tmp_path: Path) -> None:
    listener = Listener()
    found = make("made", ENSEMBLE, reporter=listener)
    assert found["start"] == "cold"
    assert set(found["members"]) == {"one", "other", "knn"}
    assert (found["members"]["one"]["epochs"], found["members"]["other"]["epochs"]) == (2, 3)
    assert found["members"]["knn"]["start"] == "fitted"
    assert all(one["temperature"] > 0.0 and one["weight"] == pytest.approx(1 / 3) for one in found["members"].values())
    assert {"one/hard_loss", "other/valid_ndcg_at_10"} <= listener.named
    one, other = (load(tmp_path / "made" / "members" / name)[0].state_dict() for name in ("one", "other"))
    assert not torch.equal(one["items.weight"], other["items.weight"])  # equal kinds start from different seeds


@pytest.mark.parametrize("dies_at", ["one: cold start", "other: cold start"])
def test_an_ensemble_that_was_killed_ends_with_the_same_bytes(
    make: Callable[..., Mapping[str, Any]], tmp_path: Path, dies_at: str
) -> None:
    expected, listener = make("whole", ENSEMBLE), Listener()
    with pytest.raises(KeyboardInterrupt):
        make("broken", ENSEMBLE, reporter=Listener(dies_at))
    assert not (tmp_path / "broken").exists()
    assert make("broken", ENSEMBLE, reporter=listener) == expected
    assert sha256_tree(tmp_path / "whole") == sha256_tree(tmp_path / "broken")
    assert "knn stands finished from an earlier run" in listener.notes
    assert ("one stands finished from an earlier run" in listener.notes) == (dies_at != "one: cold start")


def test_members_start_from_last_nights_member_of_their_name(make: Callable[..., Mapping[str, Any]]) -> None:
    make("monday", ENSEMBLE)
    listener = Listener()
    found = make("tuesday", ENSEMBLE, previous="monday", n_items=14, reporter=listener)
    assert found["start"] == "warm"
    assert found["members"]["other"]["epochs"] == 1
    assert "one: warm start from last night's weights, 2 new items" in listener.notes
    renamed = ENSEMBLE.model_copy(update={"members": {"new": MemberSpec(model=GRU), "knn": MemberSpec(model=KNN)}})
    assert make("wednesday", renamed, previous="monday", n_items=14)["start"] == "cold"


def test_a_cross_fitted_model_never_learns_from_a_folds_own_users(
    make: Callable[..., Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taught = []
    learn = teacher.learn

    def listen(apprentice: Any, words: Any, events: Sequences, *rest: Any, **more: Any) -> Any:
        taught.append(np.flatnonzero(events.train_length).tolist())
        return learn(apprentice, words, events, *rest, **more)

    monkeypatch.setattr(teacher, "learn", listen)
    found = make("made", CrossFittedSpec(kind="cross_fitted", folds=3, model=GRU))
    folds = fold_of(torch.arange(40), 3).tolist()
    assert taught == [[user for user in range(40) if folds[user] != fold] for fold in range(3)]
    assert len(found["members"]) == 3
    assert found["start"] == "cold"


def test_parts_of_other_folds_start_cold_for_they_have_learnt_from_users_that_they_are_to_judge(
    make: Callable[..., Mapping[str, Any]],
) -> None:
    make("monday", CrossFittedSpec(kind="cross_fitted", folds=2, model=GRU))
    alike = make("tuesday", CrossFittedSpec(kind="cross_fitted", folds=2, model=GRU), previous="monday")
    assert {one["start"] for one in alike["members"].values()} == {"warm"}
    listener = Listener()
    others = CrossFittedSpec(kind="cross_fitted", folds=3, model=GRU)
    found = make("wednesday", others, previous="monday", reporter=listener)
    assert {one["start"] for one in found["members"].values()} == {"cold"}
    assert any("folds changed to 3" in note for note in listener.notes)


def test_a_member_that_bears_the_name_of_a_part_is_none_for_it_has_learnt_from_everybody(
    make: Callable[..., Mapping[str, Any]],
) -> None:
    named = EnsembleSpec(kind="ensemble", members={"without-00": MemberSpec(model=GRU), "knn": MemberSpec(model=KNN)})
    make("monday", named)
    listener = Listener()
    crossed = CrossFittedSpec(kind="cross_fitted", folds=2, model=GRU)
    found = make("tuesday", crossed, previous="monday", reporter=listener)
    assert {one["start"] for one in found["members"].values()} == {"cold"}
    assert not any("folds changed" in note for note in listener.notes)


def test_a_cross_fitted_model_whose_users_all_lie_in_one_fold_is_refused(make_sequences: Make, tmp_path: Path) -> None:
    words, events = make_sequences([[1, 2, 3, 1]], n_items=3, repeat_items=True)
    write_none(tmp_path / "nothing")
    spec = CrossFittedSpec(kind="cross_fitted", folds=2, model=GRU)
    apprentice = Apprentice(spec, TRAINING, ComputeSpec(device="cpu", threads=1), 1, tmp_path / "nothing", "there")
    with pytest.raises(TrainingError, match="outside its fold, found none for 1 of 2 parts"):
        train_recommender(
            apprentice,
            Vocabulary.load(words),
            Sequences.open(events),
            resume=tmp_path,
            checkpoint=tmp_path / "made",
            reporter=SilentReporter(),
        )


@pytest.mark.parametrize("file", ["finished/model.safetensors", "finished/model.json", "figures.json"])
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "cut off"])
def test_a_finished_member_that_is_damaged_is_made_again(
    make: Callable[..., Mapping[str, Any]], tmp_path: Path, file: str, gone: bool
) -> None:
    expected, listener = make("whole", ENSEMBLE), Listener()
    with pytest.raises(KeyboardInterrupt):
        make("broken", ENSEMBLE, reporter=Listener("other: cold start"))
    damaged = tmp_path / "broken-resume" / "one" / file
    if gone:
        damaged.unlink()
    else:
        damaged.write_bytes(b"")
    assert make("broken", ENSEMBLE, reporter=listener) == expected
    assert sha256_tree(tmp_path / "whole") == sha256_tree(tmp_path / "broken")
    assert any("one is made again: what an earlier run finished is damaged" in note for note in listener.notes)


def test_what_is_in_closed_form_is_the_same_whatever_stood_there_last_night(
    make: Callable[..., Mapping[str, Any]], tmp_path: Path
) -> None:
    found = make("monday", KNN)
    assert found["start"] == "fitted"
    assert make("tuesday", KNN, previous="monday") == found
    assert sha256_tree(tmp_path / "monday") == sha256_tree(tmp_path / "tuesday")


def test_a_member_may_be_cross_fitted_itself(make: Callable[..., Mapping[str, Any]], tmp_path: Path) -> None:
    crossed = MemberSpec(model=CrossFittedSpec(kind="cross_fitted", folds=2, model=GRU))
    spec = replace_members(ENSEMBLE, {"crossed": crossed, "knn": MemberSpec(model=KNN)})
    found = make("made", spec)
    assert set(found["members"]["crossed"]["members"]) == {"without-00", "without-01"}
    assert (tmp_path / "made" / "members" / "crossed" / "members" / "without-01" / "model.safetensors").is_file()
    model, header = load(tmp_path / "made")
    assert header.spec == spec
    assert model(torch.tensor([[1, 2]]), torch.tensor([3])).shape == (1, 13)


def replace_members(spec: EnsembleSpec, members: dict[str, MemberSpec]) -> EnsembleSpec:
    return spec.model_copy(update={"members": members})
