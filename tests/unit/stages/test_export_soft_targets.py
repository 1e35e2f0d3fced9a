"""The stage on a small night: what it writes, what changes it, and that no kill changes a byte of it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.data.files import sha256_file, sha256_tree, write_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.substitution import with_copies
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.distill.soft_targets import SoftTargets
from stillhouse.distill.store_format import read_header
from stillhouse.distill.store_writer import StoreWriter
from stillhouse.errors import DataError, StoreError, TrainingError
from stillhouse.models.build import build
from stillhouse.models.checkpoint import Header, load, save
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.params.model import EaseSpec, ItemKnnSpec, TransformerSpec
from stillhouse.reporting import SilentReporter
from stillhouse.stages.export_soft_targets import _Scorer, export_soft_targets

SETTINGS: dict[str, Any] = {
    "k": 6,
    "score_bits": 8,
    "tail_samples": 4,
    "tail_bits": 7,
    "temperatures": [1.0, 2.5],
    "shard_positions": 25,
    "batch_size": 4,
    "seed": 11,
    "repeat_items": False,
    "compute": {"device": "cpu", "threads": 1},
}


@dataclass(frozen=True)
class Night:
    """The stage's inputs, and a way to run it."""

    root: Path
    paths: dict[str, Path]

    def run(self, name: str = "store", resume: str | None = None, **changes: Any) -> tuple[Path, Mapping[str, Any]]:
        waiting = self.root / (resume or f"{name}-resume")
        waiting.mkdir(exist_ok=True)
        params = ExportSoftTargetsParams.model_validate(SETTINGS | changes)
        values = export_soft_targets(
            **self.paths, soft_targets=self.root / name, resume=waiting, params=params, reporter=SilentReporter()
        )
        return self.root / name, values

    def open(self, path: Path) -> SoftTargets:
        digest = Vocabulary.load(self.paths["vocabulary"]).digest
        teacher = sha256_file(self.paths["teacher"] / "model.safetensors")
        return SoftTargets.open(path, vocabulary=digest, repeat_items=False, teacher=teacher)


@pytest.fixture
def make_export_night(tmp_path: Path, make_sequences: Callable[..., tuple[Path, Path]]) -> Callable[..., Night]:
    def make(users: int = 24, n_items: int = 25, **sequences: Any) -> Night:
        rng = np.random.default_rng(4)
        histories = [(rng.permutation(n_items)[: rng.integers(1, 13)] + 1).tolist() for _ in range(users)]
        vocabulary, events = make_sequences(histories, n_items=n_items, **sequences)
        spec = TransformerSpec(kind="transformer", width=8, blocks=1, heads=2, length=6, dropout=0.3)
        model = build(spec, n_items, seed=3)
        with torch.no_grad():
            model.items.weight.mul_(40)  # scores that are far from equal
        digest = Vocabulary.load(vocabulary).digest
        save(tmp_path / "teacher", model, Header(spec, n_items, digest, repeat_items=False, seed=3, warm=False))
        write_json(tmp_path / "teacher.json", {"passed": True})
        paths = {"teacher": tmp_path / "teacher", "checked": tmp_path / "teacher.json"}
        return Night(tmp_path, paths | {"vocabulary": vocabulary, "sequences": events})

    return make


@pytest.fixture
def export_night(make_export_night: Callable[..., Night]) -> Night:
    return make_export_night()


@pytest.mark.parametrize("windows", ["last", "all"])
@pytest.mark.parametrize("copies", [0, 2])
def test_the_store_holds_what_the_teacher_says_at_each_position(export_night, copies, windows):
    path, values = export_night.run(copies=copies, substituted=0.5, windows=windows)
    store, model = export_night.open(path), load(export_night.paths["teacher"])[0]
    events = with_copies(Sequences.open(export_night.paths["sequences"]), copies, 0.5, SETTINGS["seed"])
    rows = 0
    for user, trained in enumerate(events.train_length.tolist()):
        for step in range(0 if windows == "all" else max(0, trained - 1 - model.length), trained - 1):
            # Windows are cut from the end; what stands before a position's own is not read.
            first = max(0, trained - 1 - ((trained - 2 - step) // model.length + 1) * model.length)
            window = events.history(user, step + 1)[first:].astype(np.int64)
            with torch.inference_mode():
                scores = model(torch.from_numpy(window)[None])[0]
            left = [item for item in range(1, events.n_items + 1) if item not in events.history(user, step + 1)]
            order = sorted(left, key=lambda item: -scores[item].item())
            found = store.batch(store.position_ids(np.array([user]), np.array([step])), 2.5)
            assert sorted(found.items[0].tolist()) == sorted(order[:6])
            np.testing.assert_allclose(found.peak[0] + found.scores[0], scores[found.items[0]], atol=0.02)
            meant = np.isfinite(found.tail_logq[0])
            assert set(found.tail_items[0][meant].tolist()) <= set(order[6:])
            lse = torch.logsumexp(scores[left] / 2.5, 0).item()
            assert found.lse[0] + found.peak[0] / 2.5 == pytest.approx(lse, abs=0.01)
            rows += 1
    assert values["positions"] == len(store) == rows
    assert store.header.n_users == events.n_users == 24 * (1 + copies)
    assert (store.header.copies, store.header.substituted) == ((copies, 0.5) if copies else (0, 0.0))


def test_a_cross_fitted_teacher_scores_copies_by_those_who_have_not_seen_the_original(make_export_night):
    night = make_export_night()
    spec = EaseSpec(kind="ease", length=6, folds=3, neighbours=24, l2=1.0, decay=1.0)
    model, words = build(spec, 25, seed=3), Vocabulary.load(night.paths["vocabulary"]).digest
    events = Sequences.open(night.paths["sequences"])
    model.fit(events)
    save(night.root / "ease", model, Header(spec, 25, words, repeat_items=False, seed=3, warm=False))
    night = Night(night.root, night.paths | {"teacher": night.root / "ease"})
    store, more = night.open(night.run(copies=1, substituted=0.5)[0]), with_copies(events, 1, 0.5, SETTINGS["seed"])
    differs = 0
    for copy in range(24, 48):
        last = int(more.train_length[copy]) - 2
        if last < 0:
            continue
        window = torch.from_numpy(more.history(copy, last + 1)[-6:].astype(np.int64))[None]
        found = store.batch(store.position_ids(np.array([copy]), np.array([last])), 1.0)
        best = [model(window, torch.tensor([user]))[0, found.items[0]].max().item() for user in (copy - 24, copy)]
        assert found.peak[0] == pytest.approx(best[0], abs=0.01)
        differs += best[0] != best[1]
    assert differs > 0, "another fold would have said something else"


def test_in_mixed_precision_the_store_holds_float32_products_of_the_states(export_night, monkeypatch):
    from stillhouse.stages import export_soft_targets as stage

    seen, extract = [], stage.extract
    monkeypatch.setattr(stage, "extract", lambda scores, *rest: seen.append(scores.clone()) or extract(scores, *rest))
    precise = {"device": "cpu", "threads": 1, "precision": "bf16-mixed"}
    store = export_night.open(export_night.run(hidden=True, compute=precise)[0])
    model = load(export_night.paths["teacher"])[0]
    with torch.no_grad():
        expected = [
            model.scores(torch.from_numpy(store.batch(np.array([at]), 1.0, hidden=True).hidden))
            for at in range(len(store))
        ]
    scores = torch.cat(seen)
    assert scores.dtype == torch.float32
    assert len(scores) == len(store)
    exact = torch.cat(expected)

    def furthest(table: torch.Tensor) -> float:
        """Return the distance of the farthest position from all that ``table`` has."""
        return (scores[:, None, 1:] - table[None, :, 1:]).abs().amax(dim=2).amin(dim=1).max().item()

    assert furthest(exact) < 0.005  # what the stored states lose as float16
    assert furthest(exact.bfloat16().float()) > 0.01


def test_the_figures_are_those_of_the_store(export_night):
    path, values = export_night.run()
    store = export_night.open(path)
    assert values["shards"] == len(list(path.glob("shard-*"))) == len(store.header.shards) > 1
    assert values["bytes"] == sum(file.stat().st_size for file in path.iterdir())
    assert values["bytes_per_position"] == pytest.approx(values["bytes"] / values["positions"], abs=1e-3)
    for temperature in (1.0, 2.5):
        batch = store.batch(np.arange(len(store)), temperature)
        head = np.exp(batch.scores / temperature - batch.lse[:, None]).sum(axis=1).mean()
        assert values["top_k_probability"][f"{temperature:g}"] == pytest.approx(float(head), rel=3e-3)


def test_two_runs_give_the_same_bytes(export_night):
    assert sha256_tree(export_night.run("a")[0]) == sha256_tree(export_night.run("b")[0])


def test_threads_change_no_byte_of_a_shard(export_night):
    one, two = export_night.run("a")[0], export_night.run("b", compute={"device": "cpu", "threads": 2})[0]
    for file in ("shard-00000.safetensors", "shard-00001.safetensors", "index.safetensors"):
        assert sha256_file(one / file) == sha256_file(two / file)


def _rows(store: SoftTargets) -> list[np.ndarray]:
    batch = store.batch(np.arange(len(store)), 2.5)
    return [batch.items, batch.scores, batch.peak, batch.tail_lse, batch.tail_items, batch.tail_scores, batch.tail_logq]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_size_of_a_shard_changes_no_position(export_night, size):
    stores = [
        export_night.open(export_night.run("a")[0]),
        export_night.open(export_night.run("b", shard_positions=size)[0]),
    ]
    for one, other in zip(*map(_rows, stores), strict=True):
        assert np.array_equal(one, other)


def test_a_narrow_memory_changes_no_position(export_night, monkeypatch):
    before = export_night.run("a")[0]
    monkeypatch.setattr("stillhouse.stages.export_soft_targets._CELLS", 1)
    after = export_night.run("b")[0]
    for one, other in zip(_rows(export_night.open(before)), _rows(export_night.open(after)), strict=True):
        np.testing.assert_allclose(one.astype(float), other.astype(float), atol=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"k": 5},
        {"score_bits": 7},
        {"tail_samples": 3},
        {"tail_bits": 6},
        {"temperatures": [1.0, 2.0]},
        {"shard_positions": 7},
        {"hidden": True},
        {"windows": "all"},
        {"seed": 12},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_store(export_night, change):
    assert sha256_tree(export_night.run("a")[0]) != sha256_tree(export_night.run("b", **change)[0])


def test_the_store_holds_the_teachers_state_behind_each_position(export_night):
    store = export_night.open(export_night.run(hidden=True)[0])
    model, events = load(export_night.paths["teacher"])[0], Sequences.open(export_night.paths["sequences"])
    assert store.header.hidden_width == model.width
    for user, trained in enumerate(events.train_length.tolist()):
        steps = np.arange(max(0, trained - 1 - model.length), trained - 1)
        if not len(steps):
            continue
        window = events.history(user, trained - 1)[steps[0] :].astype(np.int64)
        with torch.inference_mode():
            expected = model.position_hidden(torch.from_numpy(window)[None]).numpy()
        found = store.batch(store.position_ids(np.full(len(steps), user), steps), 2.5, hidden=True).hidden
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_states_change_nothing_of_the_scores_and_no_part_of_a_batch_changes_them(export_night, monkeypatch):
    plain = export_night.open(export_night.run("plain")[0])
    first = export_night.open(export_night.run("a", hidden=True)[0])
    monkeypatch.setattr("stillhouse.stages.export_soft_targets._CELLS", 1)
    second = export_night.open(
        export_night.run("b", hidden=True, shard_positions=7, compute={"device": "cpu", "threads": 2})[0]
    )
    for one, other in zip(_rows(plain), _rows(first), strict=True):
        assert np.array_equal(one, other)
    ids = np.arange(len(first))
    assert np.array_equal(first.batch(ids, 1.0, hidden=True).hidden, second.batch(ids, 1.0, hidden=True).hidden)


def test_states_beyond_float16_become_its_largest_number(export_night):
    model, header = load(export_night.paths["teacher"])
    with torch.no_grad():
        model.norm.weight.mul_(1e6)
    save(export_night.root / "loud", model, header)
    night = Night(export_night.root, export_night.paths | {"teacher": export_night.root / "loud"})
    store = night.open(night.run(hidden=True)[0])
    states = store.batch(np.arange(len(store)), 1.0, hidden=True).hidden
    assert np.isfinite(states).all()
    assert np.abs(states).max() == np.finfo(np.float16).max


def test_a_teacher_without_states_cannot_have_them_kept(make_export_night):
    night = make_export_night()
    spec = ItemKnnSpec(kind="item_knn", length=6, folds=2, neighbours=5, decay=0.8, shrink=1.0)
    model, words = build(spec, 25, seed=3), Vocabulary.load(night.paths["vocabulary"]).digest
    model.fit(Sequences.open(night.paths["sequences"]))
    save(night.root / "knn", model, Header(spec, 25, words, repeat_items=False, seed=3, warm=False))
    night = Night(night.root, night.paths | {"teacher": night.root / "knn"})
    night.run()
    with pytest.raises(StoreError, match=r"found one of kind item_knn.*export_soft_targets\.hidden") as error:
        night.run("store-with-states", hidden=True)
    assert "\n" not in str(error.value)
    assert not (night.root / "store-with-states").exists()


def test_where_people_buy_again_everything_is_a_candidate(make_export_night):
    night = make_export_night(repeat_items=True)
    path, _ = night.run(repeat_items=True, k=25)
    digest = Vocabulary.load(night.paths["vocabulary"]).digest
    store = SoftTargets.open(path, vocabulary=digest, repeat_items=True)
    assert (np.sort(store.batch(np.arange(len(store)), 1.0).items, axis=1) == np.arange(1, 26)).all()


def test_k_beyond_the_catalogue_keeps_all_there_is(export_night):
    path, values = export_night.run(k=1000)
    assert export_night.open(path).header.k == 25
    assert values["top_k_probability"] == {"1": pytest.approx(1.0), "2.5": pytest.approx(1.0)}


def test_a_teacher_that_did_not_pass_teaches_nobody(export_night):
    write_json(export_night.paths["checked"], {"passed": False})
    with pytest.raises(StoreError, match="must pass check_teacher"):
        export_night.run()


def test_sequences_of_another_repeat_setting_are_refused(export_night):
    with pytest.raises(DataError, match="repeat_items must be what the sequences were prepared with"):
        export_night.run(repeat_items=True)


def test_a_night_without_a_position_is_one_line(make_export_night, make_sequences):
    night = make_export_night()
    vocabulary, events = make_sequences([[1], [2, 3]], n_items=25, name="short")
    with pytest.raises(StoreError, match="need a user with two training rows"):
        Night(night.root, night.paths | {"vocabulary": vocabulary, "sequences": events}).run()


def test_a_teacher_with_nan_scores_is_refused(export_night):
    model, header = load(export_night.paths["teacher"])
    with torch.no_grad():
        model.items.weight[7] = torch.nan
    save(export_night.root / "broken", model, header)
    with pytest.raises(TrainingError, match="must be finite, found NaN"):
        Night(export_night.root, export_night.paths | {"teacher": export_night.root / "broken"}).run()


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """The numbers of the shards that are written from here on."""
    numbers: list[int] = []
    write = StoreWriter.write

    def counting(self: StoreWriter, number: int, *rest: Any) -> None:
        numbers.append(number)
        write(self, number, *rest)

    monkeypatch.setattr(StoreWriter, "write", counting)
    return numbers


def test_finished_shards_are_kept_and_damaged_ones_made_again(export_night, written):
    path, _ = export_night.run("a", resume="shared")
    whole = sha256_tree(path)
    damaged = export_night.root / "shared" / "shard-00001.safetensors"
    damaged.unlink()
    damaged.write_bytes(b"cut off")
    written.clear()
    assert sha256_tree(export_night.run("b", resume="shared")[0]) == whole
    assert written == [1]


@pytest.mark.parametrize("cut", [0, 100, None])
@pytest.mark.parametrize("resume", ["a-resume", "empty"])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_store_with_a_bad_shard_is_made_whole_by_scoring_that_shard_alone(export_night, written, cut, resume, hidden):
    path, values = export_night.run("a", hidden=hidden)
    whole = sha256_tree(path)
    assert written == list(range(values["shards"]))
    # In place, as a failing disk would: whatever is linked to it is damaged too.
    with (path / "shard-00001.safetensors").open("rb+") as file:
        file.write(b"\0\0\0") if cut is None else file.truncate(cut)
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors must have"):
        export_night.open(path)
    written.clear()
    path, again = export_night.run("a", resume=resume, hidden=hidden)
    assert (sha256_tree(path), again) == (whole, values)
    assert written == [1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_few_batches_are_scored_while_a_shard_is_written(export_night, monkeypatch, threads):
    """And no more than a few, however long the disk takes."""
    scored, rows, write = threading.Semaphore(0), _Scorer.rows, StoreWriter.write
    waited: list[bool] = []

    def counting(self: _Scorer, batch: Any) -> Any:
        scored.release()
        return rows(self, batch)

    def slow(self: StoreWriter, number: int, *rest: Any) -> None:
        if number == 0:  # of one batch
            waited.extend(scored.acquire(timeout=60) for _ in range(1 + 2 * threads))
            waited.append(scored.acquire(timeout=0.3))
        write(self, number, *rest)

    whole = sha256_tree(export_night.run("whole", shard_positions=1, batch_size=1)[0])
    monkeypatch.setattr(_Scorer, "rows", counting)
    monkeypatch.setattr(StoreWriter, "write", slow)
    settings = {"shard_positions": 1, "batch_size": 1, "compute": {"device": "cpu", "threads": threads}}
    path, values = export_night.run("slow", **settings)
    assert values["shards"] > 8
    assert waited == [True] * (1 + 2 * threads) + [False]
    if threads == 1:
        assert sha256_tree(path) == whole


def test_where_scoring_fails_the_shards_before_stay_finished(export_night, written, monkeypatch):
    whole = sha256_tree(export_night.run("whole")[0])
    rows, calls = _Scorer.rows, iter(range(100))

    def failing(self: _Scorer, batch: Any) -> Any:
        if next(calls) == 3:
            raise OSError("the device is gone")
        return rows(self, batch)

    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(_Scorer, "rows", failing)
        with pytest.raises(OSError, match="the device is gone"):
            export_night.run("again")
    finished = list(written)
    assert finished
    assert finished[0] == 0
    written.clear()
    assert sha256_tree(export_night.run("again")[0]) == whole
    assert written[0] == len(finished)


def test_a_store_of_other_settings_is_replaced_whole(export_night, written):
    export_night.run("a")
    written.clear()
    path, values = export_night.run("a", resume="another", k=5)
    assert written == list(range(values["shards"]))
    assert export_night.open(path).header.k == 5


@pytest.fixture
def nights(make_export_night, make_sequences) -> Callable[..., tuple[Path, Night]]:
    """Give a function that exports a first night, and makes the next: its teacher started warm or not.

    On the second night users 3 and 8 have an event more each, there is a new user, and a new item behind the others.
    """

    def make(warm: bool = True, **settings: Any) -> tuple[Path, Night]:
        first = make_export_night()
        before, _ = first.run("before", **settings)
        old = Sequences.open(first.paths["sequences"])
        histories = [old.items[a:b].tolist() for a, b in pairwise(old.offsets)]
        for user in (3, 8):
            histories[user] = [*histories[user], 26]
        vocabulary, events = make_sequences([*histories, [5, 6, 7, 8]], n_items=26, name="second")
        spec, words = load(first.paths["teacher"])[1].spec, Vocabulary.load(vocabulary).digest
        header = Header(spec, 26, words, repeat_items=False, seed=4, warm=warm)
        save(first.root / "teacher-2", build(spec, 26, seed=4), header)
        paths = {"teacher": first.root / "teacher-2", "vocabulary": vocabulary, "sequences": events}
        return before, Night(first.root, first.paths | paths | {"previous_soft_targets": before})

    return make


@pytest.mark.parametrize("windows", ["last", "all"])
def test_only_users_whose_training_rows_changed_are_scored_again(nights, windows):
    before, night = nights(windows=windows)
    path, values = night.run("after", keep_nights=2, windows=windows)
    store, all_new = night.open(path), night.open(night.run("whole", windows=windows)[0])
    events = Sequences.open(night.paths["sequences"])
    digest = read_header(before).vocabulary
    old = SoftTargets.open(before, vocabulary=digest, repeat_items=False)
    scored = 0
    for user, trained in enumerate(events.train_length.tolist()):
        steps = np.arange(0 if windows == "all" else max(0, trained - 7), max(trained - 1, 0))
        users = np.full(len(steps), user)
        source = all_new if user in (3, 8, 24) else old
        scored += len(steps) * (source is all_new)
        found = store.batch(store.position_ids(users, steps), 2.5)
        expected = source.batch(source.position_ids(users, steps), 2.5)
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(array, getattr(found, name))
    assert 0 < scored < values["positions"] == len(all_new)
    assert values["positions_scored"] == store.header.positions == scored
    assert values["layers"] == 1
    assert store.header.teachers == (all_new.header.teacher, old.header.teacher)
    assert values["bytes"] == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_people_keep_what_an_earlier_teacher_said_and_copies_are_scored_afresh(nights):
    copied = {"copies": 1, "substituted": 0.5}
    before, night = nights(**copied)
    path, values = night.run("after", keep_nights=2, **copied)
    assert values["layers"] == 1
    store, afresh = night.open(path), night.open(night.run("afresh", **copied)[0])
    old = SoftTargets.open(before, vocabulary=read_header(before).vocabulary, repeat_items=False)
    more = with_copies(Sequences.open(night.paths["sequences"]), 1, 0.5, SETTINGS["seed"])
    for user, trained in enumerate(more.train_length.tolist()):
        steps = np.arange(max(0, trained - 7), trained - 1)
        users = np.full(len(steps), user)
        source = afresh if user in (3, 8) or user >= 24 else old  # 24 was a copy and is a new user now
        found = store.batch(store.position_ids(users, steps), 2.5)
        np.testing.assert_array_equal(found.peak, source.batch(source.position_ids(users, steps), 2.5).peak)


def test_of_who_keeps_what_was_said_people_are_counted_and_no_copies(make_export_night, monkeypatch):
    copied = {"copies": 2, "substituted": 0.5}
    night = make_export_night()
    before, _ = night.run("before", **copied)
    model, header = load(night.paths["teacher"])
    save(night.root / "warm", model, dataclasses.replace(header, warm=True))
    notes: list[str] = []
    monkeypatch.setattr(SilentReporter, "note", lambda _, text: notes.append(text))
    again = Night(night.root, night.paths | {"teacher": night.root / "warm", "previous_soft_targets": before})
    _, values = again.run("after", keep_nights=2, **copied)
    assert values["positions_scored"] == 0
    people = int((Sequences.open(night.paths["sequences"]).train_length > 1).sum())
    assert [note.split()[0] for note in notes if "keep what an earlier teacher said" in note] == [str(people)]


@pytest.mark.parametrize(
    ("warm", "settings"),
    [
        (True, {}),
        (False, {"keep_nights": 2}),
        (True, {"keep_nights": 2, "k": 5}),
        (True, {"keep_nights": 2, "windows": "all"}),
        (True, {"keep_nights": 2, "hidden": True}),
    ],
)
def test_everybody_is_scored_by_a_cold_teacher_under_other_settings_and_where_nothing_is_kept(nights, warm, settings):
    _, night = nights(warm)
    path, values = night.run("after", **settings)
    assert values["positions"] == values["positions_scored"]
    assert values["layers"] == 0
    assert not (path / "layers").exists()


def test_with_states_nobody_keeps_what_an_earlier_teacher_said(make_export_night):
    """Not even where last night's store holds states of the same width: they lie in another basis."""
    night = make_export_night()
    before, first = night.run("before", hidden=True)
    model, header = load(night.paths["teacher"])
    save(night.root / "warm", model, replace(header, warm=True))
    paths = night.paths | {"teacher": night.root / "warm", "previous_soft_targets": before}
    for name, settings in {"states again": {"hidden": True}, "no states": {}}.items():
        path, values = Night(night.root, paths).run(name, keep_nights=2, **settings)
        assert (values["layers"], values["positions_scored"]) == (0, first["positions"])
        assert not (path / "layers").exists()


def test_a_store_of_another_version_is_no_reason_to_fail(nights):
    before, night = nights()
    header = json.loads((before / "store.json").read_text())
    write_json(before / "store.json", header | {"version": 1})
    assert night.run("after", keep_nights=2)[1]["layers"] == 0


def test_a_night_with_nothing_new_scores_nobody(export_night):
    before, _ = export_night.run("before")
    model, header = load(export_night.paths["teacher"])
    save(export_night.root / "warm", model, replace(header, warm=True))
    paths = export_night.paths | {"teacher": export_night.root / "warm", "previous_soft_targets": before}
    night = Night(export_night.root, paths)
    path, values = night.run("after", keep_nights=1)
    assert (values["positions_scored"], values["shards"]) == (0, 0)
    for one, other in zip(_rows(night.open(path)), _rows(export_night.open(before)), strict=True):
        assert np.array_equal(one, other)


def test_two_runs_on_last_nights_store_give_the_same_bytes(nights):
    _, night = nights()
    paths = [night.run(name, keep_nights=2)[0] for name in ("a", "b", "a")]
    assert len({sha256_tree(path) for path in paths}) == 1


#: Runs the stage again and again; run n is killed at its n-th rename, link or removal, until one survives.
_KILLED = """
import json, os, signal, sys
from pathlib import Path
from stillhouse.params.export_soft_targets import ExportSoftTargetsParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.export_soft_targets import export_soft_targets

paths, settings = json.loads(sys.argv[1]), json.loads(sys.argv[2])
kills = 0
while True:
    child = os.fork()
    if child == 0:
        left = [kills + 1]
        def watch(event, arguments):
            if event in ("os.rename", "os.link", "os.remove", "os.mkdir"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        export_soft_targets(
            **{name: Path(path) for name, path in paths.items()},
            params=ExportSoftTargetsParams.model_validate(settings),
            reporter=SilentReporter(),
        )
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.waitstatus_to_exitcode(status) or (0 if kills else 9))
    kills += 1
    print(kills)
"""


def test_killed_at_any_step_the_rerun_gives_the_same_store(export_night):
    settings = SETTINGS | {"shard_positions": 60}
    whole = sha256_tree(export_night.run("whole", shard_positions=60)[0])
    resume = export_night.root / "killed-resume"
    resume.mkdir()
    paths = export_night.paths | {"soft_targets": export_night.root / "killed", "resume": resume}
    arguments = [json.dumps({name: str(path) for name, path in paths.items()}), json.dumps(settings)]
    found = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout.split()[-1]) > 5, found.stdout
    assert sha256_tree(export_night.root / "killed") == whole
