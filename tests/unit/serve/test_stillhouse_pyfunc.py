"""The loader that MLflow carries: alone, without Stillhouse, torch or a pickle."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from stillhouse.serve import stillhouse_pyfunc


@pytest.fixture
def package(make_sequences, make_package) -> Path:
    vocabulary, _ = make_sequences([[1, 2, 3, 4], [1, 3], [1, 2]], n_items=4)
    return make_package(vocabulary)


@pytest.fixture
def model(package: Path) -> stillhouse_pyfunc.StudentModel:
    return stillhouse_pyfunc._load_pyfunc(str(package))


def test_each_history_gets_a_row(model: stillhouse_pyfunc.StudentModel) -> None:
    found = model.predict(pd.DataFrame({"history": [["i1"], ["i4", "i2"]]}, index=[7, 9]), {"k": 2})
    assert found["items"].tolist() == [["i2", "i3"], ["i3", "i1"]]
    assert found["kind"].tolist() == ["personal", "personal"]
    assert found["scores"].tolist() == [[0.0, -1.0], [0.0, -2.0]]
    assert found.index.tolist() == [7, 9]


def test_lists_hold_ten_items_unless_told(model: stillhouse_pyfunc.StudentModel) -> None:
    assert len(model.predict(pd.DataFrame({"history": [["i1"]]}))["items"][0]) == 3


@pytest.mark.parametrize("history", [[], None, float("nan"), pd.NA, ("never heard of",)])
def test_nothing_known_gets_popular_items(model: stillhouse_pyfunc.StudentModel, history: object) -> None:
    found = model.predict(pd.DataFrame({"history": pd.Series([history], dtype=object)}), {"k": 1})
    assert found["items"].tolist() == [["i1"]]
    assert found["kind"].tolist() == ["popular"]


def test_whole_number_ids_are_read_as_text(model: stillhouse_pyfunc.StudentModel) -> None:
    assert model.predict(pd.DataFrame({"history": [[1, 2]]}))["kind"].tolist() == ["popular"]


@pytest.mark.parametrize(
    ("frame", "params", "message"),
    [
        (pd.DataFrame({"items": [["i1"]]}), None, "must have a column history, got"),
        (pd.DataFrame({"history": ["i1"]}), None, "must be a list of item ids, got 'i1'"),
        (pd.DataFrame({"history": [["i1"]]}), {"k": 0}, "k must be a whole number of at least 1, got 0"),
        (pd.DataFrame({"history": [["i1"]]}), {"k": 2.9}, "k must be a whole number of at least 1, got 2.9"),
        (pd.DataFrame({"history": [["i1"]]}), {"k": True}, "k must be a whole number of at least 1, got True"),
        (pd.DataFrame({"history": [{"i1": 1}]}), None, "must be a list of item ids, got {'i1': 1}"),
        (pd.DataFrame({"history": [{"i1"}]}), None, "must be a list of item ids, got {'i1'}"),
        (pd.DataFrame({"history": [b"12"]}), None, "must be a list of item ids, got b'12'"),
        (pd.DataFrame({"history": [[["i1"]]]}), None, r"must be text or a whole number, got \['i1'\]"),
        (pd.DataFrame({"history": [["i1", None]]}), None, "must be text or a whole number, got None"),
    ],
)
def test_a_bad_request_is_refused(model, frame: pd.DataFrame, params: dict[str, int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict(frame, params)


def test_another_format_is_refused(package: Path) -> None:
    path = package / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"\x06format\x12\x011", b"\x06format\x12\x012"))
    with pytest.raises(ValueError, match="must be of format 1, found '2'"):
        stillhouse_pyfunc.PackagedStudent(package)


def test_the_file_works_alone_without_stillhouse_and_torch(package: Path, tmp_path: Path) -> None:
    source = Path(stillhouse_pyfunc.__file__)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / source.name).write_bytes(source.read_bytes())
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import pandas as pd
        import stillhouse_pyfunc
        found = stillhouse_pyfunc._load_pyfunc(sys.argv[2]).predict(pd.DataFrame({"history": [["i1"]]}), {"k": 1})
        assert found["items"].tolist() == [["i2"]]
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "stillhouse", "onnx", "mlflow"}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "code"), str(package)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
