"""Answers: personal where something is known, popular and said so where nothing is."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.errors import ServingError
from stillhouse.serve.student import Student

HISTORIES = [[1, 2, 3, 4], [1, 3, 5], [1, 2], [5, 1, 2, 3]]


@pytest.fixture
def package(make_sequences, make_package) -> Path:
    vocabulary, _ = make_sequences(HISTORIES, n_items=5, categories=["a", "b", None, "a|b", "b"])
    return make_package(vocabulary, length=4)


@pytest.fixture
def student(package: Path) -> Student:
    return Student.load(package)


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_a_personal_answer_follows_the_last_item_and_leaves_out_what_was_seen(student: Student) -> None:
    answer = student.recommend(["i5", "i2"], k=3)
    assert ids(answer) == ["i3", "i4", "i1"]
    assert (answer.kind, answer.note, answer.unknown) == ("personal", "", 0)


def test_items_carry_their_titles_and_categories(student: Student) -> None:
    first, second = student.recommend(["i1"], k=3).items[1:3]
    assert (first.item_id, first.title, first.category) == ("i3", "Item 3", None)
    assert (second.item_id, second.title, second.category) == ("i4", "Item 4", "a|b")


def test_scores_fall_along_the_list(student: Student) -> None:
    scores = [item.score for item in student.recommend(["i3"], k=4).items]
    assert scores == sorted(scores, reverse=True)


def test_seen_items_come_again_where_people_take_items_again(make_sequences, make_package) -> None:
    vocabulary, _ = make_sequences(HISTORIES, n_items=5, repeat_items=True)
    student = Student.load(make_package(vocabulary, repeat_items=True))
    assert ids(student.recommend(["i3", "i2"], k=5)) == ["i3", "i4", "i5", "i1", "i2"]


def test_unknown_ids_are_left_out_counted_and_mentioned(student: Student) -> None:
    answer = student.recommend(["nobody", "i2", "nothing"], k=1)
    assert ids(answer) == ["i3"]
    assert answer.unknown == 2
    assert answer.note == "2 of 3 items of the history are unknown and were left out"


def test_an_empty_history_gets_popular_items_and_is_told_so(student: Student) -> None:
    answer = student.recommend([], k=2)
    assert answer.kind == "popular"
    assert "history is empty" in answer.note
    assert ids(answer) == ["i1", "i2"]
    assert answer.items[0].score == pytest.approx(4 / 6)


def test_a_wholly_unknown_history_gets_popular_items_and_is_told_so(student: Student) -> None:
    answer = student.recommend(["x", "y"], k=9)
    assert answer.kind == "popular"
    assert "none of the 2 items" in answer.note
    assert len(answer.items) == 5


def test_k_above_the_number_of_items_gives_all_that_are_left(student: Student) -> None:
    assert ids(student.recommend(["i4"], k=1000)) == ["i5", "i1", "i2", "i3"]


def test_a_history_of_every_item_leaves_nothing_to_recommend(student: Student) -> None:
    assert student.recommend(["i1", "i2", "i3", "i4", "i5"]).items == ()


def test_items_older_than_the_window_still_count_as_seen(student: Student) -> None:
    answer = student.recommend(["i5", "i1", "i1", "i1", "i1"], k=9)
    assert ids(answer) == ["i2", "i3", "i4"]


def test_nan_scores_are_never_recommended(make_sequences, make_package) -> None:
    vocabulary, _ = make_sequences(HISTORIES, n_items=5)
    table = np.full((6, 6), np.nan)
    table[1] = [0, 1, np.nan, 3, np.nan, 2]
    student = Student.load(make_package(vocabulary, table))
    assert ids(student.recommend(["i1"], k=9)) == ["i3", "i5"]


@pytest.mark.parametrize("k", [0, -1, 2.5, "10", True])
def test_a_k_that_is_no_positive_whole_number_is_refused(student: Student, k: object) -> None:
    with pytest.raises(ServingError, match="k must be a whole number of at least 1"):
        student.recommend(["i1"], k)  # type: ignore[arg-type]


def test_a_history_may_come_one_by_one(student: Student) -> None:
    assert student.recommend(item for item in ["i1"]) == student.recommend(["i1"])  # type: ignore[arg-type]


def test_a_history_that_is_nothing_is_refused(student: Student) -> None:
    with pytest.raises(ServingError, match="a history must be a list of item ids, got None"):
        student.recommend(None)  # type: ignore[arg-type]


def test_a_history_that_is_one_text_is_refused(student: Student) -> None:
    with pytest.raises(ServingError, match="a history must be a list of item ids"):
        student.recommend("i1")


def test_an_item_id_that_is_no_text_is_refused(student: Student) -> None:
    with pytest.raises(ServingError, match="an item id must be text, got 3 of type int"):
        student.recommend(["i1", 3])  # type: ignore[list-item]


def test_a_package_with_the_recorded_digest_loads(package: Path) -> None:
    assert Student.load(package, digest=sha256_tree(package)).packaged.n_items == 5


def test_a_package_that_was_changed_is_refused_before_it_is_opened(package: Path) -> None:
    digest = sha256_tree(package)
    (package / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ServingError, match="changed after it was let through"):
        Student.load(package, digest=digest)


def test_a_damaged_graph_is_one_line(package: Path) -> None:
    (package / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ServingError, match="must be an ONNX graph, found it damaged") as caught:
        Student.load(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["a byte", "cut off", "a column", "a null"])
def test_damaged_items_are_one_line(package: Path, damage: str) -> None:
    file = package / "items.parquet"
    whole, rows = file.read_bytes(), pq.read_table(file)
    match damage:
        case "a byte":
            file.write_bytes(whole[:30] + bytes([whole[30] ^ 255]) + whole[31:])
        case "cut off":
            file.write_bytes(whole[: len(whole) // 2])
        case "a column":
            pq.write_table(rows.drop_columns(["title"]), file)
        case "a null":
            place = rows.schema.get_field_index("popularity")
            pq.write_table(rows.set_column(place, "popularity", pa.nulls(len(rows), pa.int64())), file)
    with pytest.raises(ServingError, match=r"items\.parquet must") as caught:
        Student.load(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": None}, "found its metadata damaged"),
        ({"length": "x"}, "found its metadata damaged"),
        ({"item_ids": "7"}, "found its metadata damaged"),
        ({"repeat_items": "perhaps"}, "found its metadata damaged"),
        ({"length": "3"}, "must read 3 events and score 5 items and padding"),
        ({"item_ids": '["i1"]'}, "must read 4 events and score 1 items and padding"),
    ],
)
def test_metadata_that_is_damaged_or_of_another_graph_is_one_line(
    package: Path, change: dict[str, str | None], message: str
) -> None:
    graph = onnx.load(package / "model.onnx")
    kept = {entry.key: entry.value for entry in graph.metadata_props} | change
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {key: value for key, value in kept.items() if value is not None})
    onnx.save(graph, package / "model.onnx")
    with pytest.raises(ServingError, match=message):
        Student.load(package)


@pytest.mark.parametrize("name", ["model.onnx", "items.parquet"])
def test_a_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).unlink()
    with pytest.raises(ServingError, match=f"a package must hold {name}"):
        Student.load(package)


def test_items_of_another_package_are_refused(make_sequences, make_package, package: Path) -> None:
    vocabulary, _ = make_sequences([[1, 2, 3]], n_items=3, name="other")
    (package / "items.parquet").write_bytes((make_package(vocabulary, name="other") / "items.parquet").read_bytes())
    with pytest.raises(ServingError, match="found others in"):
        Student.load(package)


def test_loading_and_answering_imports_no_torch(package: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from stillhouse.serve.student import Student
        answer = Student.load(Path(sys.argv[1])).recommend(["i1"], k=2)
        assert [item.item_id for item in answer.items] == ["i2", "i3"]
        print([name for name in ("torch", "onnx", "mlflow", "prefect", "dvc") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(package)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_the_metadata_is_what_the_answer_is_read_from(package: Path, student: Student) -> None:
    assert student.packaged.item_ids == ["", "i1", "i2", "i3", "i4", "i5"]
    assert json.loads((package / "package.json").read_text())["length"] == student.packaged.length == 4
