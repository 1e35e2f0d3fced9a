"""What the programs of benchmarks/ share in reading their command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["at_least"]


def at_least(minimum: int) -> Callable[[str], int]:
    """Return what reads a whole number of ``minimum`` or more, for argparse."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number of {minimum} or more, got {text!r}")
        return number

    return read
