"""The soft loss: the divergence of a student from its teacher over all unseen items, with the tail made explicit.

With p the teacher and q the student, both softmaxes at temperature T over the
items that the position has not seen, head H the teacher's stored top K and tail
everything else unseen, the chain rule of relative entropy gives exactly::

    KL(p || q) = sum_{i in H} p_i log(p_i / q_i) + P log(P / Q)        the head and one bucket
               + P * KL(p / P || q / Q over the tail)                  inside the bucket

where P and Q are what p and q leave to the tail. The store holds the tail's
log-sum-exp, so the first line is exact: nothing is ever renormalised over a
truncated teacher. The second line is estimated from the stored draws j ~ g
with a' = p / P and b' = q / Q::

    KL(a' || b') = sum_j [ a'_j log(a'_j / b'_j) - a'_j + b'_j ]
                 ≈ (1 / S) sum_s [ a' log(a' / b') - a' + b' ]_{j_s} / g_{j_s}

The two added sums cancel over the tail, so the estimate is unbiased; and each
of its terms is at least 0 and has no gradient where b' = a'. A plain
importance-weighted cross-entropy has neither property on a finite sample, and
would pull a student away from a teacher that it already equals.
Source: the terms are those of a Bregman divergence (generalised KL); sampling
the tail against the bias of a truncated teacher follows Anshumann et al.,
"Sparse Logit Sampling", ACL 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.distill.catalogue import look
from stillhouse.distill.protocol import Wanted
from stillhouse.distill.soft_targets import TargetBatch

__all__ = ["TeacherRows", "divergence", "soft_loss"]

#: Above it exp(d) - 1 - d is computed in another order, so that exp(d) cannot overflow.
_FAR = 20.0


@dataclass(frozen=True)
class TeacherRows:
    """A `TargetBatch` as tensors on the student's device, with what each row has seen."""

    items: Tensor
    """int64 [N, K]; 0 pads."""
    scores: Tensor
    """float [N, K], raw; -inf pads."""
    tail_lse: Tensor
    """float [N], at the loss's temperature; -inf where there is no tail."""
    tail_items: Tensor
    """int64 [N, S]."""
    tail_scores: Tensor
    """float [N, S], raw."""
    tail_logq: Tensor
    """float [N, S]."""
    seen_rows: Tensor
    """int64 [P]: row of each (row, item) that is no candidate, ascending."""
    seen_items: Tensor
    """int64 [P]: its item."""

    @classmethod
    def of(cls, batch: TargetBatch, seen: tuple[Tensor, Tensor], device: torch.device) -> TeacherRows:
        """Move ``batch`` and the ``seen`` pairs (row, item) to ``device``."""
        arrays = (batch.items, batch.scores, batch.tail_lse, batch.tail_items, batch.tail_scores, batch.tail_logq)
        tensors = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(*tensors, *(pairs.to(device) for pairs in seen))

    def part(self, start: int, stop: int) -> TeacherRows:
        """Return rows ``start``..``stop`` - 1, without what they have seen."""
        cut = slice(start, stop)
        return TeacherRows(
            items=self.items[cut],
            scores=self.scores[cut],
            tail_lse=self.tail_lse[cut],
            tail_items=self.tail_items[cut],
            tail_scores=self.tail_scores[cut],
            tail_logq=self.tail_logq[cut],
            seen_rows=self.seen_rows[:0],
            seen_items=self.seen_items[:0],
        )


def soft_loss(scores: Tensor, teacher: TeacherRows, temperature: float) -> Tensor:
    """Return KL(teacher || student) at each position, in nats, without the factor temperature².

    Args:
        scores: float [N, n_items + 1], the student's, unbounded; column 0 takes no part.
        teacher: what the teacher said at the same N positions.
        temperature: > 0, the one that ``teacher.tail_lse`` was made for.

    Returns:
        float [N], at least 0 (but for rounding); 0 with a zero gradient where the
        student's scores equal the teacher's up to a constant. Without stored draws
        (S = 0) it is the divergence over the head and one bucket: a lower bound of
        the whole.

    Edge cases: a position with at most K unseen items has no tail and is compared
    over its head alone, which is then exact; one without any has the loss 0.
    """
    wanted = Wanted(
        items=torch.cat([teacher.items, teacher.tail_items], dim=1),
        head=teacher.items,
        seen=(teacher.seen_rows, teacher.seen_items),
        temperatures=(temperature,),
        total=False,
    )
    answer = look(scores, wanted)
    k = teacher.items.shape[1]
    head, drawn = answer.scores[:, :k], answer.scores[:, k:]
    return divergence(head, drawn, answer.log_tail[temperature], teacher, temperature)


def divergence(head: Tensor, drawn: Tensor, log_tail: Tensor, teacher: TeacherRows, temperature: float) -> Tensor:
    """Return `soft_loss` of what a student says of the items that ``teacher`` names, float [n].

    Args:
        head: float [n, K], the student's scores of ``teacher.items``; what stands at padding means nothing.
        drawn: float [n, S], of ``teacher.tail_items``.
        log_tail: float [n], the student's log-sum-exp over the tail at ``temperature``.
        teacher: of the same n positions.
        temperature: > 0.
    """
    none = torch.isneginf(teacher.tail_lse)
    tail = log_tail.masked_fill(none, 0.0)
    padding = teacher.items == 0
    # A row without a single candidate would be 0 / 0: it is compared over equal scores.
    empty = (padding.all(dim=1) & none).unsqueeze(1)
    teacher_logs = _buckets((teacher.scores / temperature).masked_fill(empty, 0.0), teacher.tail_lse)
    padded = head.masked_fill(padding, -torch.inf).masked_fill(empty, 0.0)
    student_logs = _buckets(padded / temperature, tail.masked_fill(none, -torch.inf))
    probs = teacher_logs.exp()
    # What the teacher gives no probability adds nothing, whatever the student says (-inf - -inf at padding).
    nothing = probs == 0
    ratio = teacher_logs.masked_fill(nothing, 0.0) - student_logs.masked_fill(nothing, 0.0)
    loss = (probs * ratio).sum(dim=1)
    if drawn.shape[1]:
        inside = _inside_tail(drawn.masked_fill(none.unsqueeze(1), 0.0), tail, none, teacher, temperature)
        loss = loss + probs[:, -1] * inside.mean(dim=1)
    return loss


def _buckets(head: Tensor, tail: Tensor) -> Tensor:
    """Log-probabilities [N, K + 1] of the head's items and of the tail as one bucket."""
    return torch.log_softmax(torch.cat([head, tail.unsqueeze(1)], dim=1), dim=1)


def _inside_tail(drawn: Tensor, tail: Tensor, none: Tensor, teacher: TeacherRows, temperature: float) -> Tensor:
    """The terms of the estimate [N, S], 0 where there is no tail."""
    lse = teacher.tail_lse.masked_fill(none, 0.0)
    theirs_raw = teacher.tail_scores.masked_fill(none.unsqueeze(1), 0.0)
    student_logs = drawn / temperature - tail.unsqueeze(1)
    teacher_logs = theirs_raw / temperature - lse.unsqueeze(1)
    ahead = student_logs - teacher_logs
    theirs = (teacher_logs - teacher.tail_logq).exp()
    far = ahead > _FAR
    near = theirs * (torch.expm1(ahead.clamp_max(_FAR)) - ahead)
    ours = torch.where(far, student_logs - teacher.tail_logq, 0.0).exp()
    terms = torch.where(far, ours - theirs * (1.0 + ahead), near)
    return terms.masked_fill(none.unsqueeze(1), 0.0)
