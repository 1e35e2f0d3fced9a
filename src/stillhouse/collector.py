"""How often a process looks for garbage, which by default is a third of the time of a short command.

What the libraries load stays. Python walks over all of it again and again while it is loaded, and once more as the
process ends.
"""

from __future__ import annotations

import atexit
import gc

__all__ = ["end_at_once", "look_seldom"]

#: How many objects must be new before Python looks at these, then at older ones, then at all.
_SELDOM = (300_000, 50, 100)


def look_seldom() -> None:
    """Look for garbage when much is new. Not for a process that trains, whose garbage may hold tensors."""
    gc.set_threshold(*_SELDOM)


def end_at_once() -> None:
    """Do without the look at everything as this process ends, when all of it goes anyway."""
    atexit.register(gc.freeze)
