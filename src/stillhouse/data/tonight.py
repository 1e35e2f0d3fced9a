"""One night's data, as every stage after ``prepare`` opens it."""

from __future__ import annotations

from pathlib import Path

from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import DataError

__all__ = ["read_night"]


def read_night(vocabulary: Path, sequences: Path, repeat_items: bool) -> tuple[Vocabulary, Sequences]:
    """Return tonight's vocabulary and sequences, which belong together.

    Raises:
        DataError: they are damaged, of two nights, or were prepared under another ``repeat_items``.
    """
    words, events = Vocabulary.load(vocabulary), Sequences.open(sequences)
    events.require(words)
    if events.repeat_items != repeat_items:
        raise DataError(
            f"repeat_items must be what the sequences were prepared with, got {str(repeat_items).lower()} for "
            f"sequences of {str(events.repeat_items).lower()} (params.yaml: repeat_items): run the stage prepare again"
        )
    return words, events
