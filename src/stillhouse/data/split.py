"""Which events are trained on and which are held out.

Two protocols share one cut. *Leave-one-out*: of a user's events up to the
start of the time window, the last is the test target, the one before it the
validation target, and those before both are training rows. *Time window*: what
happens after its start, up to ``as_of``, is held out whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillhouse.data.events import Events
from stillhouse.errors import DataError

__all__ = ["Cut", "Window", "cut", "time_window"]

_DAY = 86_400
#: A first night's window may hold this share of the rows and no more.
_MOST = 0.5


@dataclass(frozen=True)
class Window:
    """The time window: events later than ``start`` and not later than ``end``; none where both are ``None``."""

    start: int | None
    end: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Cut:
    """What each event is for, a mask a split, bool [n]; an event may be in none."""

    train: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]
    window: npt.NDArray[np.bool_]

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Events that are a target of any split."""
        return self.valid | self.test | self.window


def time_window(events: Events, *, window_days: float, as_of: int, previous_as_of: int | None) -> Window:
    """Say where tonight's time window lies.

    It starts ``window_days`` before ``as_of``, but never before last night's
    ``as_of``: what lies before that, an ancestor may have trained on.

    Args:
        events: tonight's rows.
        window_days: longest window, in days; 0: none.
        as_of: end of tonight's events, seconds since the epoch.
        previous_as_of: end of last night's; ``None`` on a first night.

    Raises:
        DataError: a row is later than ``as_of``, or last night's ``as_of`` is.
    """
    if events.order == "position":
        return Window(None, None, "the source is ordered by position: it has no time")
    if len(events) and (latest := int(events.times.max())) > as_of:
        raise DataError(
            f"no accepted row may be later than as_of, found time {latest} after {as_of} (night.yaml: as_of): "
            "run the stage validate again"
        )
    if previous_as_of is not None and previous_as_of > as_of:
        raise DataError(
            f"as_of must not be before last night's, got {as_of} after {previous_as_of} seconds since 1970 "
            "(night.yaml: as_of): run a backfill in a worktree of its own"
        )
    if window_days == 0:
        return Window(None, None, "prepare.window_days is 0")
    start = as_of - round(window_days * _DAY)
    if previous_as_of is not None and previous_as_of >= start:
        return Window(previous_as_of, as_of, "starts at last night's as_of")
    share = float(np.mean(events.times > start)) if len(events) else 0.0
    if previous_as_of is None and share > _MOST:
        return Window(None, None, f"the last {window_days:g} days hold {share:.0%} of the rows of a first night")
    return Window(start, as_of, f"starts {window_days:g} days before as_of")


def cut(events: Events, window: Window) -> Cut:
    """Cut each user's events into training rows and targets.

    Let n be the number of a user's events up to the window's start. The first
    max(1, n - 2) are training rows (none, where n is 0); with n ≥ 3 event n - 1
    is the validation target; with n ≥ 2 event n is the test target; every event
    in the window is a target.

    Args:
        events: rows in chronological order, before any is dropped for its item.
        window: the time window.
    """
    early = np.ones(len(events), bool) if window.start is None else events.times <= window.start
    n_users = len(events.user_ids)
    totals = np.bincount(events.users, minlength=n_users)
    starts = np.cumsum(totals) - totals
    before = np.bincount(events.users[early], minlength=n_users)[events.users]
    position = np.arange(len(events)) - starts[events.users]
    # A user's early events come first, so that positions below `before` are early.
    return Cut(
        train=early & (position < np.maximum(1, before - 2)),
        valid=(before >= 3) & (position == before - 2),
        test=(before >= 2) & (position == before - 1),
        window=~early,
    )
