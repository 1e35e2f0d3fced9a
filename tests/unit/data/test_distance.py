"""How far two versions of a file are from each other, told in the terms of what it holds."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from stillhouse.data.distance import how_far


def as_json(value):
    return json.dumps(value).encode()


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "before", "after", "says"),
    [
        ("a.json", as_json({"x": {"y": [1, 2]}}), as_json({"x": {"y": [1, 2.25]}}), "largest difference 0.25 (x.y[1])"),
        ("a.json", as_json({"x": "a"}), as_json({"x": "b"}), "other values in x"),
        ("a.json", as_json({"x": 1}), as_json({"x": 1, "z": 2}), "other parts: z"),
        ("a.json", b'{"x": 1}', b'{"x":1}', "the same values, written otherwise"),
        ("a.npy", as_npy(np.zeros(3)), as_npy(np.array([0, 0, 0.5])), "largest difference 0.5 (array)"),
        ("a.npy", as_npy(np.zeros(3)), as_npy(np.zeros(4)), "array has other dimensions: (3,) and (4,)"),
        ("a.parquet", as_parquet(r=[1, 2], s=["a", "b"]), as_parquet(r=[1, 5], s=["a", "c"]),
         "largest difference 3 (r); other values in s"),
        ("m.safetensors", save({"w": np.zeros(2, np.float32)}), save({"w": np.array([0, 1e-6], np.float32)}),
         "largest difference 1e-06 (w)"),
        ("m.onnx", b"12", b"345", "other bytes (2 and 3)"),
        ("broken.json", b"{", b"}", "other bytes (1 and 1)"),
        ("broken.parquet", b"{", b"}", "other bytes (1 and 1)"),
        ("broken.safetensors", b"{", b"}", "other bytes (1 and 1)"),
        ("any", b"1", b"1", "byte for byte the same"),
    ],
)  # fmt: skip
def test_a_difference_is_told_in_numbers_where_there_are_any(name, before, after, says):
    assert how_far(name, before, after) == says


def test_an_array_with_objects_in_it_is_not_unpickled():
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    assert how_far("a.npy", file.getvalue(), as_npy(np.zeros(1))).startswith("other bytes")
