"""Rules that hold a student against another model on the same users: the champion, slice by slice, and a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stillhouse.errors import one_line
from stillhouse.evaluate.metrics import ndcg, per_user
from stillhouse.evaluate.paired import common_rows, lower_bound
from stillhouse.evaluate.ranks import Protocol, RankRows, Ranks
from stillhouse.evaluate.rule import Rule
from stillhouse.params.gate import GateParams

__all__ = ["Ground", "against_champion", "against_reference", "paired_users", "regressions"]

_K = 10
#: Least draws of a bootstrap that lie beyond its bound.
_BEYOND = 2
#: Slices that a reason names, the worst first, and letters of a slice's name in it: a registry's texts are short.
_NAMED, _NAME = 5, 60
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ground:
    """Where models are compared: which targets, and which of them belong to which slice."""

    protocol: Protocol
    masks: Mapping[str, Mask]
    """Slice → its targets, bool [n] in the order of the student's ranks."""

    @classmethod
    def of(cls, order: Literal["timestamp", "position"], masks: Mapping[Protocol, Mapping[str, Mask]]) -> Ground:
        """Return the time window, or leave-one-out where positions order the events and allow no window."""
        protocol: Protocol = "time_window" if order == "timestamp" else "leave_one_out"
        return cls(protocol, masks.get(protocol, {}))

    @property
    def where(self) -> str:
        """The targets in words."""
        if self.protocol == "time_window":
            return "tonight's time window"
        return "leave-one-out (positions allow no time window)"


def against_champion(student: Ranks, champion: Ranks | None, ground: Ground, params: GateParams) -> Rule:
    """Return the rule that holds the student against the champion.

    *Non-inferiority* passes when the lower confidence bound of the mean difference
    in NDCG@10 (student minus champion, a user counted once) is at least minus
    ``margin`` times the champion's mean; *superiority* when it is above zero. Not
    "no significant difference": with few users that would let anything through.

    Args:
        student: its ranks of tonight.
        champion: the champion's ranks of tonight; None passes, there is nothing to lose.
        ground: where they are compared.
        params: which of the two, margin, confidence, resamples, least users and seed.
    """
    name = params.against_champion
    if champion is None:
        return Rule(name, None, None, True, "no champion yet: there is nothing to be worse than")
    margin = params.margin if name == "non_inferiority" else None
    return _bounded(name, student, champion, "champion", margin, ground, params)


def against_reference(student: Ranks, reference: Ranks | None, ground: Ground, params: GateParams) -> Rule:
    """Return the rule that holds the student against a fixed reference: many small losses do not add up beyond it.

    Args:
        student: its ranks of tonight.
        reference: the reference's ranks of tonight; None passes, there is none.
        ground: where they are compared.
        params: ``reference_margin``, confidence, resamples, least users and seed.
    """
    if reference is None:
        return Rule("reference", None, None, True, "no reference: there is nothing to have drifted from")
    return _bounded("reference", student, reference, "reference", params.reference_margin, ground, params)


def _bounded(
    name: str, student: Ranks, other: Ranks, called: str, margin: float | None, ground: Ground, params: GateParams
) -> Rule:
    ours, theirs = paired_users(student, other, ground.protocol)
    if len(ours) < params.min_users:
        text = (
            f"inconclusive against the {called}: {len(ours)} users on {ground.where}, at least {params.min_users} asked"
        )
        return Rule(name, None, None, False, text, inconclusive=True)
    bound = lower_bound(ours - theirs, params.confidence, params.resamples, params.seed)
    limit = 0.0 if margin is None else 0.0 - margin * float(theirs.mean())
    asked = "more than 0 asked" if margin is None else f"at least {limit:+.4f} asked"
    text = (
        f"NDCG@10 on {ground.where}: {ours.mean():.4f} against the {called}'s {theirs.mean():.4f} over {len(ours)} "
        f"users; the difference is above {bound:+.4f} with confidence {params.confidence:g}, {asked}"
    )
    return Rule(name, bound, limit, bound > 0 if margin is None else bound >= limit, text)


def regressions(student: Ranks, champion: Ranks | None, ground: Ground, params: GateParams) -> Rule:
    """Return the rule that no slice is shown to have lost more than its margin against the champion.

    A slice is stopped by a regression that is *shown* (the upper confidence bound
    of its mean difference, and that difference itself, lie below minus the margin), for small slices can
    never show the contrary. Several slices are looked at, so each is asked for more
    confidence (Bonferroni's correction).

    Args:
        student: its ranks of tonight.
        champion: the champion's; None passes.
        ground: the slices.
        params: ``slices``, confidence, resamples and seed.
    """
    name = "slices"
    if champion is None:
        return Rule(name, None, None, True, "no champion yet: there is nothing to regress from")
    pairs = {part: paired_users(student, champion, ground.protocol, mask) for part, mask in ground.masks.items()}
    looked = {part: pair for part, pair in pairs.items() if len(pair[0]) >= params.slices.min_users}
    worse = []
    for part, (ours, theirs) in looked.items():
        limit = 0.0 - params.slices.margin * float(theirs.mean())
        if float((ours - theirs).mean()) >= limit:  # what did not happen need not be shown: draws are spared
            continue
        outside = (1.0 - params.confidence) / len(looked)
        resamples = max(params.resamples, math.ceil(_BEYOND / outside))  # or the bound were the smallest draw of all
        upper = -lower_bound(theirs - ours, 1.0 - outside, resamples, params.seed)
        if upper < limit:
            found = f"{theirs.mean():.4f} to {ours.mean():.4f} over {len(ours)} users, the difference is below"
            told = f"{one_line(part)[:_NAME]} ({found} {upper:+.4f}, at least {limit:+.4f} asked)"
            worse.append((upper - limit, told))
    text = f"no slice is shown to have regressed ({len(looked)} looked at, {len(pairs) - len(looked)} too small)"
    if worse:
        more = f"; and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
        text = f"no slice may regress, found {'; '.join(told for _, told in sorted(worse)[:_NAMED])}{more}"
    return Rule(name, len(worse), 0, not worse, text)


def paired_users(
    student: Ranks, champion: Ranks, protocol: Protocol, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return NDCG@10 of both models for each user, over the targets that both have, two float64 [n_users].

    Args:
        student: one model's ranks.
        champion: the other's.
        protocol: whose targets.
        mask: bool [n], the student's rows that count; None: all of them.
    """
    a, b = student.rows[protocol], champion.rows[protocol]
    rows_a, rows_b = common_rows(a.users, a.items, b.users, b.items)
    if mask is not None:
        rows_a, rows_b = rows_a[mask[rows_a]], rows_b[mask[rows_a]]
    return _per_user(a, rows_a, student.n_items), _per_user(b, rows_b, champion.n_items)


def _per_user(rows: RankRows, chosen: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    return per_user(ndcg(rows.ranks[chosen], _K, n_items), rows.users[chosen])[1]
