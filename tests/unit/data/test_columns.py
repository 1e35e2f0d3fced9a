import pyarrow as pa

from stillhouse.data.columns import CODED_TEXT, join

SCHEMA = pa.schema([("who", CODED_TEXT), ("when", pa.int64()), ("stars", pa.float64()), ("said", pa.string())])


def table(who, when, stars, said):
    arrays = [
        pa.array(who, pa.string()).dictionary_encode(),
        pa.array(when, pa.int64()),
        pa.array(stars, pa.float64(), from_pandas=False),
        pa.array(said, pa.string()),
    ]
    return pa.table(arrays, schema=SCHEMA)


def test_joined_columns_hold_what_the_files_do_one_chunk_each():
    files = [
        table(["ann", None, "bob"], [1, 2, None], [None, float("nan"), 3.0], [None, "x", None]),
        table([], [], [], []),
        table(["cid", "ann", None], [4, 5, 6], [1.0, 2.0, 3.0], ["y", None, None]),
    ]
    found = join(iter(files), SCHEMA, 6).table(SCHEMA)
    expected = pa.concat_tables(files).cast(pa.schema([*((n, pa.string()) for n in ("who",)), *list(SCHEMA)[1:]]))
    assert repr(found.cast(expected.schema).to_pydict()) == repr(expected.to_pydict()), "NaN stays NaN, null null"
    assert all(column.num_chunks == 1 for column in found.columns)


def test_codes_count_names_in_the_order_in_which_the_files_have_them_and_null_is_minus_one():
    who = join([table(["b", None, "a"], [1] * 3, [1] * 3, ["x"] * 3), table(["c", "b"], [1] * 2, [1] * 2, ["x"] * 2)],
               SCHEMA, 5).coded["who"]  # fmt: skip
    assert who.names.to_pylist() == ["b", "a", "c"]
    assert who.codes.tolist() == [0, -1, 1, 2, 0]
    assert who.missing == 1


def test_no_file_and_a_file_of_nulls_alone_join_too():
    assert join([], SCHEMA, 0).table(SCHEMA).num_rows == 0
    empty = pa.table([pa.nulls(2, pa.string()).dictionary_encode(), *(pa.nulls(2, f.type) for f in list(SCHEMA)[1:])],
                     schema=SCHEMA)  # fmt: skip
    assert join([empty], SCHEMA, 2).table(SCHEMA).to_pydict() == {name: [None, None] for name in SCHEMA.names}


def test_a_file_in_several_chunks_with_dictionaries_of_their_own_is_joined_right():
    parts = [table(["a", "b"], [1, 2], [1, 2], ["x", "y"]), table(["b", "c"], [3, 4], [3, 4], ["z", "w"])]
    found = join([pa.concat_tables(parts)], SCHEMA, 4)
    assert found.coded["who"].array().to_pylist() == ["a", "b", "b", "c"]
    assert found.plain["when"].to_pylist() == [1, 2, 3, 4]
