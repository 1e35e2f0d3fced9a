from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stillhouse.data.files import sha256_tree
from stillhouse.distill.positions import windows
from stillhouse.distill.store_writer import StoreWriter

LENGTHS = [3, 0, 9, 1, 2, 4, 12]


def test_equal_inputs_give_equal_bytes(make_store):
    assert sha256_tree(make_store(LENGTHS, name="a").path) == sha256_tree(make_store(LENGTHS, name="b").path)


def test_the_size_of_a_shard_changes_no_row(make_store):
    few, many = make_store(LENGTHS, name="a", users_a_shard=9), make_store(LENGTHS, name="b", users_a_shard=1)
    stores = few.open(), many.open()
    assert [len(store.header.shards) for store in stores] == [1, 5]
    ids = few.open().position_ids(few.users, few.steps)
    one, other = (store.batch(ids, 2.0) for store in stores)
    for name in ("items", "scores", "peak", "tail_lse", "tail_items", "tail_scores", "tail_logq"):
        assert (getattr(one, name) == getattr(other, name)).all(), name


def _writer(tmp_path: Path, made) -> StoreWriter:
    return StoreWriter(tmp_path / "store-resume", made.open().header)


def test_a_shard_is_finished_only_while_its_bytes_are_those_of_its_record(make_store, tmp_path):
    writer = _writer(tmp_path, make_store(LENGTHS))
    assert [writer.finished(number) for number in range(4)] == [True, True, True, False]
    (tmp_path / "store-resume" / "shard-00000.safetensors").write_bytes(b"cut")
    (tmp_path / "store-resume" / "shard-00001.safetensors.json").unlink()
    (tmp_path / "store-resume" / "shard-00002.safetensors.json").write_text("{")
    assert not any(writer.finished(number) for number in range(3))


def test_publishing_again_over_a_store_gives_the_same_store(make_store, tmp_path):
    made = make_store(LENGTHS)
    before = sha256_tree(made.path)
    _writer(tmp_path, made).publish(made.path, 3, windows(LENGTHS, 5))
    assert sha256_tree(made.path) == before


def test_without_links_and_across_file_systems_the_store_is_the_same(make_store, tmp_path, monkeypatch):
    made = make_store(LENGTHS)

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def far(self: Path, target: Path) -> Path:
        if self.name == "store":
            raise OSError(errno.EXDEV, "another file system")
        return renamed(self, target)

    renamed = Path.rename
    monkeypatch.setattr("os.link", no_link)
    monkeypatch.setattr(Path, "rename", far)
    _writer(tmp_path, made).publish(tmp_path / "copy", 3, windows(LENGTHS, 5))
    assert sha256_tree(tmp_path / "copy") == sha256_tree(made.path)
    assert not list(tmp_path.glob(".copy*"))


def test_another_failure_of_the_move_is_not_hidden(make_store, tmp_path, monkeypatch):
    made = make_store(LENGTHS)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="full"):
        _writer(tmp_path, made).publish(tmp_path / "copy", 3, windows(LENGTHS, 5))
