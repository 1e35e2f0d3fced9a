"""A packaged student, from item ids to a list: one file that needs nothing else of Stillhouse.

MLflow carries this file beside the model (``code_paths``) and imports it under
its own name (``loader_module="stillhouse_pyfunc"``, ``data_path=`` the package
directory), so that a registered student predicts where Stillhouse and torch are
not installed. That is why nothing of Stillhouse may be imported here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMAT", "PERSONAL", "POPULAR", "PackagedStudent", "StudentModel", "_load_pyfunc"]

#: Version of the package's layout that this file reads.
FORMAT = 1

_COLUMNS = ("item_id", "title", "category", "popularity")

#: An answer from the person's own history.
PERSONAL = "personal"
#: An answer to an empty or wholly unknown history: the most popular items.
POPULAR = "popular"

Ints = NDArray[np.int64]


class PackagedStudent:
    """The graph of one package with its vocabulary; arrays in, arrays out.

    Attributes:
        item_ids: item id by index; index 0 (padding) is "".
        popularity: int64 [n_items + 1], interactions among training rows.
        titles: title by index, None where there is none.
        categories: categories by index, None where there are none.
        length: the most recent events of a history that the graph looks at.
        repeat_items: whether items that stand in the history may be recommended again.
        vocabulary: digest of the vocabulary.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        """Load the package in ``directory``.

        Args:
            directory: holds ``model.onnx`` and ``items.parquet``.
            threads: threads of ONNX Runtime; stated, because its default (all cores)
                makes a small model slow on a busy machine.

        Raises:
            ValueError: a file is missing, damaged, of another format, or the two do not belong together.
        """
        self._session = _session(directory / "model.onnx", threads)
        inside: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        if inside.get("format") != str(FORMAT):
            raise ValueError(f"the package must be of format {FORMAT}, found {inside.get('format')!r} in {directory}")
        try:
            self.item_ids: list[str] = ["", *json.loads(inside["item_ids"])]
            self.length = int(inside["length"])
            self.repeat_items: bool = json.loads(inside["repeat_items"])
            self.vocabulary = inside["vocabulary"]
            self._index = {item: index for index, item in enumerate(self.item_ids) if index}
            shapes = [node.shape[1] for node in (*self._session.get_inputs(), *self._session.get_outputs())]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"model.onnx must say what it was made for, found its metadata damaged ({error!r}) in {directory}"
            ) from error
        if shapes != [self.length, len(self.item_ids)]:
            raise ValueError(
                f"model.onnx must read {self.length} events and score {self.n_items} items and padding, as its "
                f"metadata says, found a graph of {shapes} in {directory}"
            )
        items = _items(directory / "items.parquet")
        if items["item_id"] != self.item_ids[1:]:
            raise ValueError(
                f"items.parquet must hold the items of model.onnx in their order, found others in {directory}"
            )
        self.titles: list[str | None] = [None, *items["title"]]
        self.categories: list[str | None] = [None, *items["category"]]
        self.popularity: Ints = np.array([0, *items["popularity"]], dtype=np.int64)

    @property
    def n_items(self) -> int:
        """Number of items that can be recommended."""
        return len(self.item_ids) - 1

    def indices(self, item_ids: Iterable[str]) -> Ints:
        """Return the indices of those of ``item_ids`` that the vocabulary holds, in their order."""
        known = (self._index.get(item, 0) for item in item_ids)
        return np.array([index for index in known if index], dtype=np.int64)

    def scores(self, histories: Ints) -> NDArray[np.float32]:
        """Return float32 [n, n_items + 1] for padded histories int64 [n, length]; column 0 is -inf."""
        found: NDArray[np.float32] = self._session.run(["scores"], {"histories": histories})[0]
        return found

    def answer(self, history: Ints, k: int) -> tuple[str, Ints, NDArray[np.float64]]:
        """Return the ``k`` best items for one history.

        Args:
            history: int64 [n] of indices ≥ 1, oldest first, of any length.
            k: ≥ 1; above the number of candidates it gives all of them.

        Returns:
            `PERSONAL` or `POPULAR` (an empty history); the items' indices int64 [m], best
            first, equal scores in order of their index; and their scores float64 [m]
            (for `POPULAR` the share of the training rows).
        """
        if len(history) == 0:
            shares = self.popularity / max(int(self.popularity.sum()), 1)
            return (POPULAR, *_best(shares, np.empty(0, np.int64), k))
        padded = np.zeros((1, self.length), dtype=np.int64)
        recent = history[-self.length :]
        padded[0, : len(recent)] = recent
        seen = np.empty(0, np.int64) if self.repeat_items else history
        return (PERSONAL, *_best(self.scores(padded)[0].astype(np.float64), seen, k))


class StudentModel:
    """What MLflow's pyfunc calls."""

    def __init__(self, student: PackagedStudent) -> None:
        self._student = student

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return a list of items for each history.

        Args:
            model_input: a column ``history`` of lists of item ids, oldest first, as strings or whole
                numbers; an empty list, or null, is answered with the most popular items.
            params: ``k``, how many items a list holds (10 where it is not given, or null).

        Returns:
            A row a history: ``items`` (ids, best first), ``scores``, and ``kind``
            (`PERSONAL` or `POPULAR`).

        Raises:
            ValueError: there is no column ``history``, one of its cells is no list of
                ids, or ``k`` is below 1 or no whole number.
        """
        import pandas as pd

        k = (params or {}).get("k")
        k = 10 if k is None else k
        if not _whole(k) or k < 1:
            raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
        if "history" not in model_input:
            raise ValueError(f"the input must have a column history, got {sorted(map(str, model_input))}")
        student = self._student
        answers = [student.answer(student.indices(_ids(cell)), k) for cell in model_input["history"]]
        return pd.DataFrame(
            {
                "items": [[student.item_ids[index] for index in items] for _, items, _ in answers],
                "scores": [scores.tolist() for _, _, scores in answers],
                "kind": [kind for kind, _, _ in answers],
            },
            index=model_input.index,
        )


def _load_pyfunc(path: str) -> StudentModel:
    """Return the student in the package directory ``path``: the entry point that MLflow looks for."""
    return StudentModel(PackagedStudent(Path(path)))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ValueError(f"a package must hold model.onnx, found none in {path.parent}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from whatever else runs on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Eight-bit weights are decoded once, here, and not at every request.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no public base class
        raise ValueError(f"{path} must be an ONNX graph, found it damaged: {error}") from error


def _items(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise ValueError(f"a package must hold items.parquet, found none in {path.parent}")
    try:
        found: dict[str, list[Any]] = pq.read_table(path, columns=[*_COLUMNS]).to_pydict()
    except (OSError, LookupError, ValueError) as error:  # Arrow's own errors are among them
        raise ValueError(f"{path} must be a whole table, found it damaged: {error}") from error
    if missing := [name for name in _COLUMNS if name not in found]:
        raise ValueError(f"{path} must have the columns {', '.join(_COLUMNS)}, found no {missing[0]}")
    if None in found["popularity"]:
        raise ValueError(f"{path} must say how popular every item is, found a null in popularity")
    return found


def _best(scores: NDArray[np.floating], seen: Ints, k: int) -> tuple[Ints, NDArray[np.float64]]:
    candidates = np.array(np.where(np.isnan(scores), -np.inf, scores), dtype=np.float64)
    candidates[0] = -np.inf
    candidates[seen] = -np.inf
    order = np.argsort(-candidates, kind="stable")[: min(k, len(candidates) - 1)]
    order = order[~np.isneginf(candidates[order])]
    return np.asarray(order, dtype=np.int64), candidates[order]


def _ids(cell: object) -> list[str]:
    import pandas as pd

    if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return []
    if not isinstance(cell, list | tuple | np.ndarray):
        raise ValueError(f"a history must be a list of item ids, got {cell!r}")
    for item in cell:
        if not isinstance(item, str) and not _whole(item):
            raise ValueError(f"an item id must be text or a whole number, got {item!r} in a history")
    return [str(item) for item in cell]


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
