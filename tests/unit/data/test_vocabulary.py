from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stillhouse.data.files import read_json, sha256_tree, write_json
from stillhouse.data.vocabulary import Vocabulary, extended, item_digest
from stillhouse.errors import DataError


@pytest.fixture
def three() -> Vocabulary:
    return Vocabulary(
        item_ids=["", "kettle", "0042", "żółw"],
        user_ids=["ann", "bob"],
        popularity=np.array([0, 5, 2, 0], np.int64),
        titles=[None, "A kettle", None, "Turtle"],
        texts=[None, "boils water", None, None],
        categories=[None, "kitchen|metal", None, "pets"],
        as_of="2024-03-01T00:00:00+00:00",
        has_items=True,
    )


def test_load_gives_back_what_was_saved(three: Vocabulary, tmp_path: Path) -> None:
    three.save(tmp_path / "v")
    loaded = Vocabulary.load(tmp_path / "v")
    assert loaded.item_ids == three.item_ids
    assert loaded.user_ids == three.user_ids
    assert loaded.popularity.tolist() == [0, 5, 2, 0]
    assert (loaded.titles, loaded.texts, loaded.categories) == (three.titles, three.texts, three.categories)
    assert (loaded.as_of, loaded.has_items) == (three.as_of, True)
    assert (loaded.n_items, loaded.n_users, loaded.digest) == (3, 2, three.digest)


def test_unknown_ids_have_the_unknown_index(three: Vocabulary) -> None:
    assert three.item_index("0042") == 2
    assert three.item_index("42") == 0
    assert three.item_index("") == 0
    assert three.user_index("bob") == 1
    assert three.user_index("eve") == -1
    assert three.item_indices(["żółw", "no", "kettle"]).tolist() == [3, 0, 1]
    assert three.user_indices(["eve", "ann"]).tolist() == [-1, 0]


def test_equal_vocabularies_are_equal_bytes(three: Vocabulary, tmp_path: Path) -> None:
    three.save(tmp_path / "a")
    Vocabulary.load(tmp_path / "a").save(tmp_path / "b")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_items_on_disk_count_from_one_and_users_from_zero(three: Vocabulary, tmp_path: Path) -> None:
    three.save(tmp_path)
    assert pq.read_table(tmp_path / "items.parquet")["item_index"].to_pylist() == [1, 2, 3]
    assert pq.read_table(tmp_path / "users.parquet")["user_index"].to_pylist() == [0, 1]


def test_known_ids_keep_their_place_and_new_ones_follow() -> None:
    assert extended(["b", "a"], ["c", "a", "d"]) == ["b", "a", "c", "d"]
    assert extended([], ["y", "x"]) == ["y", "x"]


def test_digest_depends_on_order_and_on_where_an_id_ends() -> None:
    assert item_digest(["a", "b"]) != item_digest(["b", "a"])
    assert item_digest(["a,b"]) != item_digest(["a", "b"])


def test_a_vocabulary_without_its_users_is_refused(three: Vocabulary, tmp_path: Path) -> None:
    three.save(tmp_path)
    (tmp_path / "users.parquet").unlink()
    with pytest.raises(DataError, match=r"users\.parquet"):
        Vocabulary.load(tmp_path)


def test_a_vocabulary_with_another_digest_is_refused(three: Vocabulary, tmp_path: Path) -> None:
    three.save(tmp_path)
    write_json(tmp_path / "vocabulary.json", {**read_json(tmp_path / "vocabulary.json"), "digest": "0" * 64})
    with pytest.raises(DataError, match=r"vocabulary\.json"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("damage", ["rubbish", "cut off", "bytes altered", "a column gone"])
def test_a_damaged_table_is_refused_in_one_line(three: Vocabulary, tmp_path: Path, damage: str) -> None:
    three.save(tmp_path)
    file = tmp_path / "items.parquet"
    whole = file.read_bytes()
    if damage == "a column gone":
        pq.write_table(pq.read_table(file).drop_columns(["popularity"]), file)
    else:
        altered = whole[:4] + bytes(byte ^ 255 for byte in whole[4:60]) + whole[60:]
        file.write_bytes(
            {"rubbish": b"no table", "cut off": whole[: len(whole) // 2], "bytes altered": altered}[damage]
        )
    with pytest.raises(DataError, match="run the stage prepare again") as error:
        Vocabulary.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["", "{", "{}", "[]"])
def test_a_damaged_header_is_refused_in_one_line(three: Vocabulary, tmp_path: Path, header: str) -> None:
    three.save(tmp_path)
    (tmp_path / "vocabulary.json").write_text(header)
    with pytest.raises(DataError, match="the files of a vocabulary must be whole"):
        Vocabulary.load(tmp_path)
