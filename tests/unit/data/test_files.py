"""Files are whole or absent, and equal values give equal bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data.files import (
    is_none,
    md5_of_files,
    read_json,
    replacing,
    sha256_file,
    sha256_tree,
    write_bytes,
    write_json,
    write_none,
    write_parquet,
)


def test_json_is_written_with_sorted_keys_and_a_newline(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  1.5,\n  null\n ],\n "b": 1\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None], "b": 1}


def test_json_refuses_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_bytes_and_no_temporary_file(tmp_path: Path):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def cut_off():
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cut_off()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_write_replaces_what_was_there(tmp_path: Path):
    write_bytes(tmp_path / "a", b"a long old text")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_threads_that_write_one_path_at_once_do_not_take_each_others_file(tmp_path: Path):
    path, both = tmp_path / "a", threading.Barrier(2)

    def write(text: bytes) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(text)
            both.wait(timeout=30)

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(write, b"first"), pool.submit(write, b"second")]:
            one.result(timeout=30)
    assert path.read_bytes() in {b"first", b"second"}
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_file_digest_is_sha256_of_the_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_tree_digest_sees_names_and_contents_and_nothing_else(tmp_path: Path):
    def tree(name: str, files: dict[str, bytes]) -> str:
        for relative, data in files.items():
            path = tmp_path / name / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return sha256_tree(tmp_path / name)

    first = tree("one", {"a": b"1", "d/b": b"2"})
    assert tree("two", {"d/b": b"2", "a": b"1"}) == first
    assert tree("three", {"a": b"1", "d/c": b"2"}) != first
    assert tree("four", {"a": b"1", "d/b": b"3"}) != first
    assert tree("five", {"a": b"2", "d/b": b"1"}) != first
    assert sha256_tree(tmp_path / "one" / "a") == sha256_file(tmp_path / "one" / "a")


def test_none_marks_a_directory_with_nothing_from_last_night(tmp_path: Path):
    assert not is_none(tmp_path)
    write_none(tmp_path / "previous" / "teacher")
    assert is_none(tmp_path / "previous" / "teacher")
    assert json.loads((tmp_path / "previous" / "teacher" / "none.json").read_text()) == {"none": True}


def test_equal_tables_give_equal_parquet_bytes_however_they_were_made(tmp_path: Path):
    whole = pa.table({"a": ["x", None, "y"], "b": pa.array([1, 2, None], pa.int32())})
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)]).replace_schema_metadata({"pandas": "{}"})
    write_parquet(tmp_path / "whole.parquet", whole)
    write_parquet(tmp_path / "parts.parquet", parts)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    assert pq.read_table(tmp_path / "parts.parquet").equals(whole)
    assert pq.read_schema(tmp_path / "parts.parquet").metadata is None


def test_md5_of_files_is_what_dvc_names_contents_by(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"hello")
    assert md5_of_files(tmp_path) == {"a/x": "5d41402abc4b2a76b9719d911017c592"}
