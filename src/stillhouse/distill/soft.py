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

The gradient is written out, so that the [N, n_items + 1] scores are walked few times.
With c_s = P / S * (b' - a') / g of draw s it is, divided by T::

    q_i - p_i                            for i in H
    b'_j (Q - P - sum_s c_s)             for j in the tail, and + c_s at the drawn items
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.distill.soft_targets import TargetBatch

__all__ = ["TeacherRows", "soft_loss"]

#: Above it exp(d) - 1 - d is computed in another order, so that exp(d) cannot overflow.
_FAR = 20.0
#: A tail whose terms sum to less, relative to the row's best score, is summed again relative to its own best.
_THIN = 1e-25


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
    """int64 [P]: row of each (row, item) that is no candidate."""
    seen_items: Tensor
    """int64 [P]: its item."""

    @classmethod
    def of(cls, batch: TargetBatch, seen: tuple[Tensor, Tensor], device: torch.device) -> TeacherRows:
        """Move ``batch`` and the ``seen`` pairs (row, item) to ``device``."""
        arrays = (batch.items, batch.scores, batch.tail_lse, batch.tail_items, batch.tail_scores, batch.tail_logq)
        tensors = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(*tensors, *(pairs.to(device) for pairs in seen))


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
    over its head alone, which is then exact.
    """
    loss: Tensor = _SoftLoss.apply(scores, teacher, temperature)  # type: ignore[no-untyped-call]
    return loss


class _SoftLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, teacher: TeacherRows, temperature: float) -> Tensor:
        lse, terms, total = _tail(scores, teacher, temperature)
        teacher_logs = _buckets(teacher.scores / temperature, teacher.tail_lse)
        head = scores.gather(1, teacher.items).masked_fill(teacher.items == 0, -torch.inf)
        student_logs = _buckets(head / temperature, lse)
        probs = teacher_logs.exp()
        # What the teacher gives no probability adds nothing, whatever the student says (-inf - -inf at padding).
        ratio = (teacher_logs - student_logs).masked_fill(probs == 0, 0.0)
        loss = (probs * ratio).sum(dim=1)
        slope = (student_logs.exp() - probs) / temperature
        at_head, at_tail = slope[:, :-1], slope[:, -1]
        at_drawn = torch.empty_like(teacher.tail_scores)
        if teacher.tail_items.shape[1]:
            inside, slopes = _inside_tail(scores.gather(1, teacher.tail_items), lse, teacher, temperature)
            loss = loss + probs[:, -1] * inside.mean(dim=1)
            at_drawn = probs[:, -1:] * slopes / (slopes.shape[1] * temperature)
            at_tail = at_tail - at_drawn.sum(dim=1)
        ctx.save_for_backward(terms, at_head, at_tail / total, at_drawn, teacher.items, teacher.tail_items)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        terms, at_head, at_tail, at_drawn, head, drawn = ctx.saved_tensors
        result = terms * (at_tail * gradient).unsqueeze(1)
        result.scatter_add_(1, head, at_head * gradient.unsqueeze(1))
        result.scatter_add_(1, drawn, at_drawn * gradient.unsqueeze(1))
        return result, None, None


def _tail(scores: Tensor, teacher: TeacherRows, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The student's log-sum-exp over its tail [N], -inf where there is none, its terms [N, n_items + 1] and their sum.

    What is no part of the tail is taken out after the exponential: exponentials of -inf are several times slower.
    """
    top = scores[:, 1:].amax(dim=1, keepdim=True)
    terms = (scores - top).div_(temperature)
    terms[:, 0] = 0.0
    terms.exp_()
    _leave_tail(terms, teacher.items, teacher.seen_rows, teacher.seen_items, 0.0)
    total = terms.sum(dim=1)
    lse = total.log() + top.squeeze(1) / temperature
    thin = total < _THIN
    if bool(thin.any()):
        lse[thin], terms[thin], total[thin] = _thin_tail(scores, teacher, temperature, thin)
    return lse, terms, total


def _thin_tail(scores: Tensor, teacher: TeacherRows, temperature: float, thin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_tail`, of the rows in ``thin`` alone, relative to their tail's best: nothing underflows beside the head."""
    scaled = scores[thin] / temperature
    place, mine = thin.cumsum(0) - 1, thin[teacher.seen_rows]
    rows = place[teacher.seen_rows[mine]]
    _leave_tail(scaled, teacher.items[thin], rows, teacher.seen_items[mine], -torch.inf)
    top = scaled.amax(dim=1, keepdim=True)
    none = top == -torch.inf
    terms = (scaled - top.masked_fill(none, 0.0)).exp_()
    total = terms.sum(dim=1)
    return total.log() + top.squeeze(1), terms, total.masked_fill(none.squeeze(1), 1.0)


def _leave_tail(values: Tensor, head: Tensor, seen_rows: Tensor, seen_items: Tensor, empty: float) -> None:
    """Write ``empty`` to every cell that is no part of the tail: column 0, the head and what was seen."""
    values[:, 0] = empty
    values.scatter_(1, head, empty)
    values[seen_rows, seen_items] = empty


def _buckets(head: Tensor, tail: Tensor) -> Tensor:
    """Log-probabilities [N, K + 1] of the head's items and of the tail as one bucket."""
    return torch.log_softmax(torch.cat([head, tail.unsqueeze(1)], dim=1), dim=1)


def _inside_tail(drawn: Tensor, lse: Tensor, teacher: TeacherRows, temperature: float) -> tuple[Tensor, Tensor]:
    """The terms of the estimate [N, S], and their slopes against log b', both 0 where there is no tail."""
    student_logs = drawn / temperature - lse.unsqueeze(1)
    teacher_logs = teacher.tail_scores / temperature - teacher.tail_lse.unsqueeze(1)
    ahead = student_logs - teacher_logs
    ours, theirs = (student_logs - teacher.tail_logq).exp(), (teacher_logs - teacher.tail_logq).exp()
    near = theirs * (torch.expm1(ahead.clamp_max(_FAR)) - ahead)
    terms = torch.where(ahead > _FAR, ours - theirs * (1.0 + ahead), near)
    none = torch.isinf(teacher.tail_lse).unsqueeze(1)
    return terms.masked_fill(none, 0.0), (ours - theirs).masked_fill(none, 0.0)
