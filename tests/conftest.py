"""Fixtures that every test may ask for. No torch here: serving and flows are tested without it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from stillhouse.data.files import write_json, write_parquet
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary

# As the runner sets it: two test processes on two cores must not spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

#: Events of a made time window are later than this; those before are their positions.
_WINDOW_START = 1_000_000


@pytest.fixture
def make_sequences(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Give a function that writes a small night: ``make_sequences([[1, 2, 3], [2, 1]])`` → (vocabulary, sequences).

    Histories are lists of item indices (≥ 1), a list a user; times are positions. The split is leave-one-out over
    all but each user's last ``window`` events, which are the time window's targets. Items are called "i1", "i2" …,
    users "u0", "u1" …; ``name`` tells several nights of one test apart.
    """

    def make(
        histories: Sequence[Sequence[int]],
        *,
        n_items: int | None = None,
        window: int = 0,
        repeat_items: bool = False,
        weights: Sequence[Sequence[float]] | None = None,
        categories: Sequence[str | None] | None = None,
        name: str = "night",
    ) -> tuple[Path, Path]:
        count = n_items or max(chain([0], *histories))
        before = [max(0, len(history) - window) for history in histories]
        train = [min(n, max(1, n - 2)) for n in before]
        vocabulary = Vocabulary(
            item_ids=["", *(f"i{index}" for index in range(1, count + 1))],
            user_ids=[f"u{user}" for user in range(len(histories))],
            popularity=np.bincount(
                np.array([item for h, n in zip(histories, train, strict=True) for item in h[:n]], np.int64),
                minlength=count + 1,
            ).astype(np.int64),
            titles=[None, *(f"Item {index}" for index in range(1, count + 1))],
            texts=[None] * (count + 1),
            categories=[None, *(categories or [None] * count)],
            as_of="2024-01-31T00:00:00+00:00",
            has_items=True,
        )
        cut = list(enumerate(zip(histories, before, strict=True)))
        sequences = Sequences(
            items=np.array(list(chain(*histories)), np.int32),
            times=np.array(
                [t if t < n else _WINDOW_START + 1 + t for _, (h, n) in cut for t in range(len(h))], np.int64
            ),
            weights=np.array(list(chain(*(weights or [[1.0] * len(history) for history in histories]))), np.float32),
            offsets=np.cumsum([0, *map(len, histories)], dtype=np.int64),
            train_length=np.array(train, np.int32),
            valid=_targets((user, n - 2, h[n - 2]) for user, (h, n) in cut if n >= 3),
            test=_targets((user, n - 1, h[n - 1]) for user, (h, n) in cut if n >= 2),
            window=_targets((user, t, h[t]) for user, (h, n) in cut for t in range(n, len(h))),
            n_items=count,
            vocabulary=vocabulary.digest,
            repeat_items=repeat_items,
            order="timestamp" if window else "position",
            window_start=_WINDOW_START if window else None,
            window_end=2 * _WINDOW_START if window else None,
            window_reason="made for a test",
        )
        vocabulary.save(tmp_path / name / "vocabulary")
        np.save(tmp_path / name / "vocabulary" / "trained.npy", np.zeros(0, np.uint64))
        sequences.save(tmp_path / name / "sequences")
        return tmp_path / name / "vocabulary", tmp_path / name / "sequences"

    return make


@pytest.fixture(scope="session")
def write_accepted() -> Callable[..., Path]:
    """Give a function that writes accepted rows: ``write_accepted(folder, [("ann", "kettle", 0), …])`` → folder.

    A row is (user, item, time) and may go on with (rating, event). Rows of one UTC day come into one file, in their
    order; with ``order="position"`` all come into ``undated.parquet``. ``items``: item id → (title, text, category).
    """

    def write(
        directory: Path,
        rows: Sequence[tuple[object, ...]],
        *,
        order: str = "timestamp",
        items: Mapping[str, tuple[str | None, str | None, str | None]] | None = None,
    ) -> Path:
        (directory / "interactions").mkdir(parents=True)
        days: dict[str, list[tuple[object, ...]]] = {}
        for row in rows:
            day = str(datetime.fromtimestamp(int(str(row[2])), UTC).date()) if order == "timestamp" else "undated"
            days.setdefault(day, []).append((*row, None, None)[:5])
        for day, content in days.items():
            columns = dict(zip(_INTERACTIONS.names, zip(*content, strict=True), strict=True))
            write_parquet(directory / "interactions" / f"{day}.parquet", pa.table(columns, schema=_INTERACTIONS))
        if items is not None:
            table = [{"item_id": item, "title": t, "text": x, "category": c} for item, (t, x, c) in items.items()]
            write_parquet(directory / "items.parquet", pa.Table.from_pylist(table, schema=_ITEMS))
        header = {
            "order": order,
            "rows": len(rows),
            "has_rating": True,
            "has_event": True,
            "has_items": items is not None,
        }
        write_json(directory / "accepted.json", header)
        return directory

    return write


_INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("time", pa.int64()),
        ("rating", pa.float64()),
        ("event", pa.string()),
    ]
)
_ITEMS = pa.schema([(name, pa.string()) for name in ("item_id", "title", "text", "category")])


def _targets(rows: Iterable[tuple[int, int, int]]) -> np.ndarray:
    return np.array(list(rows), np.int64).reshape(-1, 3)


class _Together(LoadScopeScheduling):
    """Keeps tests on one process where they share what is dear to make; others go where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in _SHARING:
            return file
        return _GRAPHS if file.startswith(_GRAPHS) else nodeid


#: Files whose fixtures are made once a module: servers, workspaces, exported graphs.
_SHARING = frozenset(
    str(path.relative_to(Path(__file__).parents[1]))
    for path in Path(__file__).parent.rglob("test_*.py")
    if 'scope="module"' in path.read_text(encoding="utf-8")
)

#: The folder whose tests share graphs that are exported once a process.
_GRAPHS = "tests/unit/package/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together:
    """Hand out tests by what they share, in the order of `pytest_collection_modifyitems`.

    xdist's own groups are without effect under this pytest.
    """
    config.option.loadscopereorder = False
    return _Together(config, log)


#: What begins first, in this order. The second makes the two nights that most others copy; the rest of these copy none,
#: so that nobody waits for it meanwhile.
_FIRST = ("drill", "audit.py::test_a_student_is_verified_back", "alerts", "stack", "pools")

#: What comes last of the nights: it reads the one that `make run` closed, in CI beside the first tests.
_LAST = "shop_is_worth"

#: What begins first of all others: alone at the end it would keep two processes waiting.
_LONG = "tests/unit/train/test_killed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first. What is short comes last and fills up what time the processes have left."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        _, night, name = item.nodeid.partition("tests/pipeline/test_")
        first = (number for number, begins in enumerate(_FIRST) if name.startswith(begins))
        if not night:
            return True, not item.nodeid.startswith(_LONG)
        return False, next(first, len(_FIRST) + name.startswith(_LAST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Look for garbage less often: what libraries and tests have loaded by now is millions of objects, and stays.

    A third of the processor time of the tests that start no process went into walking over them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
