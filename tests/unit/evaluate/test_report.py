"""Which targets belong to which slice, in the order in which ranks are kept."""

from __future__ import annotations

import numpy as np

from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.evaluate.report import Catalogue, target_masks

HISTORIES = [[1, 2, 3, 4], [2, 1, 3], [4, 2, 1]]


def masks(make_sequences, categories=None, names=("a", "b", "a", None)):
    vocabulary, sequences = make_sequences(HISTORIES, window=1, categories=list(names))
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    catalogue = Catalogue(events, words.popularity, (10,), short_history=2, head_share=0.5)
    return target_masks("window", catalogue, words.categories if categories else None)


def test_a_target_is_in_the_slices_of_its_history_and_its_item(make_sequences) -> None:
    found = masks(make_sequences)
    assert found["short"].tolist() == [False, True, True]
    assert found["long"].tolist() == [True, False, False]
    assert not any(name.startswith("category") for name in found)


def test_each_category_of_items_is_a_slice_and_an_item_without_one_is_in_none(make_sequences) -> None:
    found = masks(make_sequences, categories=True)
    assert found["category a"].tolist() == [False, True, True]  # the targets are 4, 3 and 1
    assert "category b" not in found
    assert np.array(list(found.values())).dtype == bool


def test_an_item_of_several_categories_is_in_the_slice_of_each(make_sequences) -> None:
    found = masks(make_sequences, categories=True, names=("a|b", "b", "b|c", "a"))  # the targets are 4, 3 and 1
    expected = {"a": [True, False, True], "b": [False, True, True], "c": [False, True, False]}
    assert {name: mask.tolist() for name, mask in found.items() if name.startswith("category")} == {
        f"category {name}": mask for name, mask in expected.items()
    }
