"""What was made again is held against what DVC kept of the recorded night."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tasks import reproduction
from tasks.content import Contents, contents
from tasks.reproduction import _compared


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Contents, Path, dict[str, str]]]:
    """A folder and a file that DVC keeps, and where they lie."""
    root = tmp_path / "kept"
    root.mkdir()

    def dvc(*arguments: str) -> None:
        command = [str(Path(sys.executable).parent / "dvc"), *arguments]
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc("init", "-q")
    (root / "metrics.json").write_text(json.dumps({"ndcg": 0.5}))
    (root / "model").mkdir()
    for name in ("a.json", "b.json"):
        (root / "model" / name).write_text(json.dumps({"x": 1.0}))
    dvc("add", "-q", "metrics.json", "model")
    hashes = {
        path: yaml.safe_load((root / f"{path}.dvc").read_text())["outs"][0]["md5"] for path in ("metrics.json", "model")
    }
    with contents(root) as found:
        yield found, root, hashes


def output(kept: Any, path: str, argument: str = "metrics") -> dict[str, str]:
    return {"path": path, "md5": kept[2][path], "argument": argument}


def test_equal_bytes_are_identical(kept: Any) -> None:
    for path in ("metrics.json", "model"):
        assert _compared(kept[0], kept[1], "train", output(kept, path)).state == "identical"


def test_what_differs_is_told_file_by_file_and_how_far(kept: Any) -> None:
    (kept[1] / "model" / "b.json").write_text(json.dumps({"x": 1.5}))
    (kept[1] / "model" / "c.json").write_text("{}")
    found = _compared(kept[0], kept[1], "train", output(kept, "model"))
    assert (found.state, found.says) == ("differs", "b.json: largest difference 0.5 (x); c.json: is new")
    (kept[1] / "model" / "a.json").unlink()
    assert "a.json: is gone" in _compared(kept[0], kept[1], "train", output(kept, "model")).says


def test_ids_and_timings_differ_by_nature(kept: Any) -> None:
    (kept[1] / "metrics.json").write_text("{}")
    assert _compared(kept[0], kept[1], "train", output(kept, "metrics.json", "timings")).state == "by nature"
    assert _compared(kept[0], kept[1], "train", output(kept, "metrics.json")).state == "differs"


def test_an_output_that_was_not_made_is_gone(kept: Any) -> None:
    (kept[1] / "metrics.json").unlink()
    found = _compared(kept[0], kept[1], "train", output(kept, "metrics.json"))
    assert (found.state, found.says) == ("differs", "metrics.json: is gone")


def test_what_is_made_again_tracks_nowhere_but_in_its_clone(tmp_path, monkeypatch):
    """Code of before there was an outbox opens a run wherever it may: not in the workspace's registry."""
    given = mock.Mock()
    monkeypatch.setattr(reproduction, "repository", lambda *_a, **_k: contextlib.nullcontext(given))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    reproduction._perform(tmp_path, "prepare", {})
    environment = given.reproduce.call_args.kwargs["run_env"]
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / '.stillhouse' / 'mlflow.db'}"
    assert environment["STILLHOUSE_STAGE_RUN"] == "reproduction"
