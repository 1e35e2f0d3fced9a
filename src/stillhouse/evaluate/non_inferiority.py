"""Is the student no worse than the champion, on the same users, by more than the margin?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stillhouse.evaluate.metrics import ndcg, per_user
from stillhouse.evaluate.paired import common_rows, lower_bound
from stillhouse.evaluate.ranks import Protocol, RankRows, Ranks
from stillhouse.evaluate.rule import Rule
from stillhouse.params.gate import GateParams

__all__ = ["compare", "paired_users"]

_NAME = "non_inferiority"
_K = 10


def compare(
    student: Ranks, champion: Ranks | None, params: GateParams, order: Literal["timestamp", "position"]
) -> Rule:
    """Return the rule that holds the student against the champion.

    It passes when the lower confidence bound of the mean difference in NDCG@10
    (student minus champion, a user counted once) is at least minus ``margin``
    times the champion's mean. Not "no significant difference": with few users
    that would let anything through.

    Args:
        student: its ranks of tonight.
        champion: the champion's ranks of tonight; None passes, there is nothing to lose.
        params: margin, confidence, resamples, least users and seed.
        order: ``timestamp`` compares on the time window; ``position`` has none and compares on leave-one-out.
    """
    if champion is None:
        return Rule(_NAME, None, None, True, "no champion yet: there is nothing to be worse than")
    protocol: Protocol = "time_window" if order == "timestamp" else "leave_one_out"
    where = "tonight's time window" if order == "timestamp" else "leave-one-out (positions allow no time window)"
    ours, theirs = paired_users(student, champion, protocol)
    if len(ours) < params.min_users:
        text = f"inconclusive: {len(ours)} users on {where}, at least {params.min_users} asked"
        return Rule(_NAME, None, None, False, text, inconclusive=True)
    bound = lower_bound(ours - theirs, params.confidence, params.resamples, params.seed)
    limit = 0.0 - params.margin * float(theirs.mean())
    text = (
        f"NDCG@10 on {where}: {ours.mean():.4f} against the champion's {theirs.mean():.4f} over {len(ours)} users; "
        f"the difference is above {bound:+.4f} with confidence {params.confidence:g}, at least {limit:+.4f} asked"
    )
    return Rule(_NAME, bound, limit, bound >= limit, text)


def paired_users(
    student: Ranks, champion: Ranks, protocol: Protocol
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return NDCG@10 of both models for each user, over the targets that both have, two float64 [n_users]."""
    a, b = student.rows[protocol], champion.rows[protocol]
    rows_a, rows_b = common_rows(a.users, a.items, b.users, b.items)
    return _per_user(a, rows_a, student.n_items), _per_user(b, rows_b, champion.n_items)


def _per_user(rows: RankRows, chosen: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    return per_user(ndcg(rows.ranks[chosen], _K, n_items), rows.users[chosen])[1]
