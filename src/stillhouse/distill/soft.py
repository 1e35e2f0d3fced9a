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

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.distill.catalogue import look
from stillhouse.distill.heads import standardised
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch, Wanted
from stillhouse.distill.seen import Seen
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Soft", "divergence", "soft_loss", "teacher_terms"]


class Soft(Method):
    """Soft labels with temperature: KL(teacher || student) over all unseen items, times temperature².

    The factor keeps the size of the gradient when the temperature changes.

    With ``standardise`` both sides' scores of the teacher's best items are first brought to mean
    0 and deviation 1, and the divergence is that of the two softmaxes over these items alone,
    each normalised over the same few: the student is then asked for the teacher's order and
    proportions, not for its spread of scores, and hears nothing of the tail.

    Sources: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015;
    S. Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.
    """

    name = "soft_loss"

    def __init__(self, *, standardise: bool = False) -> None:
        """Compare probabilities, or with ``standardise`` those of standardised scores."""
        self._standardise = standardise

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return the teacher's side of the divergence."""
        if not self._standardise:
            return teacher_terms(teacher)
        return {"logs": _standard_logs(teacher.scores, teacher)}

    def loss(self, said: Said) -> Tensor:
        """Return the divergence at each position, float [n], without the factor temperature²."""
        if not self._standardise:
            return divergence(said.head, said.drawn, said.log_unseen, said.log_tail, said.teacher, said.own)
        theirs = said.own["logs"]
        ours = _standard_logs(said.head, said.teacher)
        return (theirs.exp() * (theirs - ours)).masked_fill(said.teacher.padding, 0.0).sum(dim=1)

    def scale(self, temperature: float) -> float:
        """Return temperature²."""
        return temperature**2


def soft_loss(scores: Tensor, teacher: TeacherRows, seen: Seen | tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return KL(teacher || student) at each position, in nats, without the factor temperature².

    Args:
        scores: float [N, n_items + 1], the student's, unbounded; column 0 takes no part.
        teacher: what the teacher said at the same N positions; its temperature is that of both sides.
        seen: what is no candidate at the N positions; ``None``: everything is one.

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
        head_at=0,
        seen=seen,
        temperatures=(teacher.temperature,),
        total=False,
    )
    answer = look(scores, wanted)
    k = teacher.items.shape[1]
    head, drawn = answer.scores[:, :k], answer.scores[:, k:]
    log_unseen, log_tail = answer.log_unseen[teacher.temperature], answer.log_tail[teacher.temperature]
    return divergence(head, drawn, log_unseen, log_tail, teacher, teacher_terms(teacher))


def teacher_terms(teacher: TeacherRows) -> dict[str, Tensor]:
    """Return what `divergence` needs of the teacher alone, so that it is worked out once a batch.

    Returns:
        ``known``, float [N]: sum of p log p over the head and the bucket, and P times the mean of
        a' / g (log a' - 1); ``over``, float [N, S]: -log g of each draw, -inf where it means nothing;
        ``weights``, float [N, S]: a' / g, 0 there.
    """
    t = teacher.temperature
    none = torch.isneginf(teacher.tail_lse)
    tail_lse = teacher.tail_lse.masked_fill(none, 0.0)
    logs = teacher.scores.masked_fill(teacher.padding, 0.0)
    known = torch.linalg.vecdot(teacher.probs, logs) / t + teacher.tail_prob * tail_lse - teacher.log_all
    nothing = (teacher.tail_items == 0) | none.unsqueeze(1)
    inside = teacher.tail_scores.masked_fill(nothing, 0.0) / t - tail_lse.unsqueeze(1)
    over = (-teacher.tail_logq).masked_fill(nothing, -torch.inf)
    weights = (inside + over).exp()
    if nothing.shape[1]:
        known = known + teacher.tail_prob * (weights * (inside - 1.0)).mean(dim=1)
    return {"known": known, "over": over, "weights": weights}


def divergence(
    head: Tensor, drawn: Tensor, log_unseen: Tensor, log_tail: Tensor, teacher: TeacherRows, terms: Mapping[str, Tensor]
) -> Tensor:
    """Return `soft_loss` of what a student says of the items that ``teacher`` names, float [n].

    Args:
        head: float [n, K], the student's scores of ``teacher.items``; what stands at padding means nothing.
        drawn: float [n, S], of ``teacher.tail_items``.
        log_unseen: float [n], the student's log-sum-exp over the unseen items at the teacher's temperature.
        log_tail: float [n], over those outside the head.
        teacher: of the same n positions.
        terms: `teacher_terms` of them.
    """
    known, over, weights = terms["known"], terms["over"], terms["weights"]
    found: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        head.masked_fill(teacher.padding, 0.0),
        drawn,
        log_unseen,
        log_tail,
        teacher.probs,
        teacher.tail_prob,
        known,
        over,
        weights,
        teacher.temperature,
    )
    return found


class _Divergence(torch.autograd.Function):
    """With its gradient written down: a part of a batch is so small that autograd's own steps would cost more."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Tensor,
        drawn: Tensor,
        log_unseen: Tensor,
        log_tail: Tensor,
        probs: Tensor,
        tail_prob: Tensor,
        known: Tensor,
        over: Tensor,
        weights: Tensor,
        temperature: float,
    ) -> Tensor:
        tail = log_tail.masked_fill(torch.isneginf(log_tail), 0.0)
        # Probabilities sum to 1, or to 0 where there is no candidate.
        cross = torch.linalg.vecdot(probs, head) / temperature + tail_prob * tail
        loss: Tensor = known - cross + log_unseen * (probs.sum(dim=1) + tail_prob)
        ctx.temperature = temperature
        if not drawn.shape[1]:
            ctx.save_for_backward(probs, tail_prob)
            return loss
        # With s = log b': the mean of b' / g - a' / g (1 + s - log a'), of which ``known`` holds what lacks s.
        inside = torch.sub(drawn if temperature == 1.0 else drawn / temperature, tail.unsqueeze(1))
        inside.masked_fill_(torch.isneginf(over), 0.0)
        ours = (inside + over).exp_()
        loss += tail_prob * (ours.sum(dim=1) - torch.linalg.vecdot(weights, inside)) / drawn.shape[1]
        ctx.save_for_backward(probs, tail_prob, ours.sub_(weights))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        probs, tail_prob, *slopes = ctx.saved_tensors
        at_head = probs * (gradient / -ctx.temperature).unsqueeze(1)
        at_tail = -gradient * tail_prob
        at_unseen = gradient * (probs.sum(dim=1) + tail_prob)
        at_drawn = None
        if slopes:
            each = slopes[0] * (gradient * tail_prob / slopes[0].shape[1]).unsqueeze(1)
            at_tail = at_tail - each.sum(dim=1)
            at_drawn = each.div_(ctx.temperature)
        return (at_head, at_drawn, at_unseen, at_tail, None, None, None, None, None, None)


def _standard_logs(scores: Tensor, teacher: TeacherRows) -> Tensor:
    """Return log-probabilities of the head's standardised scores among themselves, float [n, K]."""
    real = ~teacher.padding
    apart = standardised(scores, real) / teacher.temperature
    empty = ~real.any(dim=1, keepdim=True)
    return apart.masked_fill(~real & ~empty, -torch.inf).log_softmax(dim=1)
