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

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.distill.catalogue import look
from stillhouse.distill.heads import LEAST_SPREAD, with_spread
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import Wanted
from stillhouse.distill.seen import Seen
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Soft", "divergence", "soft_loss"]


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
        self.wants_draws = self.wants_unseen = self.wants_tail = not standardise

    def loss(self, said: Said) -> Tensor:
        """Return the divergence at each position, float [n], without the factor temperature²."""
        if not self._standardise:
            return divergence(said.head, said.drawn, said.log_unseen, said.log_tail, said.teacher)
        form = _StandardisedWhole if said.teacher.whole else _Standardised
        found: Tensor = form.apply(said.head, said.teacher)  # type: ignore[no-untyped-call]
        return found

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
    return divergence(head, drawn, log_unseen, log_tail, teacher)


def divergence(head: Tensor, drawn: Tensor, log_unseen: Tensor, log_tail: Tensor, teacher: TeacherRows) -> Tensor:
    """Return `soft_loss` of what a student says of the items that ``teacher`` names, float [n].

    Args:
        head: float [n, K], the student's scores of ``teacher.items``; what stands at padding means nothing.
        drawn: float [n, S], of ``teacher.tail_items``.
        log_unseen: float [n], the student's log-sum-exp over the unseen items at the teacher's temperature.
        log_tail: float [n], over those outside the head.
        teacher: of the same n positions.
    """
    found: Tensor = _Divergence.apply(head, drawn, log_unseen, log_tail, teacher)  # type: ignore[no-untyped-call]
    return found


class _Divergence(torch.autograd.Function):
    """With its gradient written down: a part of a batch is so small that autograd's own steps would cost more."""

    @staticmethod
    def forward(
        ctx: Any, head: Tensor, drawn: Tensor, log_unseen: Tensor, log_tail: Tensor, teacher: TeacherRows
    ) -> Tensor:
        t, probs, tail_prob = teacher.temperature, teacher.probs, teacher.tail_prob
        # Both sides' tails are of one position, but where the store lacks it or no draw fell into the student's.
        tailless = teacher.tailless | torch.isneginf(log_tail)
        tail = log_tail.masked_fill(tailless, 0.0)
        tail_lse = teacher.tail_lse.masked_fill(tailless, 0.0)
        # Sum of p (log p - log q) over the head and the bucket; p sums to 1, or to 0 where there is no candidate.
        ahead = (teacher.scores - head).masked_fill_(teacher.padding, 0.0)
        some = probs.sum(dim=1) + tail_prob
        loss: Tensor = torch.linalg.vecdot(probs, ahead) / t
        loss += tail_prob * (tail_lse - tail) + some * (log_unseen - teacher.log_all)
        ctx.temperature = t
        if not drawn.shape[1]:
            ctx.save_for_backward(probs, tail_prob, some)
            return loss
        none = tailless.unsqueeze(1)
        theirs = _inside(teacher.tail_scores, tail_lse, none, t)
        ours = _inside(drawn, tail, none, t)
        # a' / g and b' / g; a draw that counts nothing has -log g = -inf.
        asked, given = (theirs - teacher.tail_logq).exp_(), (ours - teacher.tail_logq).exp_()
        ahead = theirs.sub_(ours)
        slope = given.sub_(asked)
        terms = torch.linalg.vecdot(asked, ahead) + slope.sum(dim=1)
        loss += tail_prob * terms / drawn.shape[1]
        ctx.save_for_backward(probs, tail_prob, some, slope.masked_fill_(none, 0.0))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        probs, tail_prob, some, *slopes = ctx.saved_tensors
        at_head = probs * (gradient / -ctx.temperature).unsqueeze(1)
        at_tail = -gradient * tail_prob
        at_drawn = None
        if slopes:
            each = slopes[0] * (gradient * tail_prob / slopes[0].shape[1]).unsqueeze(1)
            at_tail = at_tail - each.sum(dim=1)
            at_drawn = each if ctx.temperature == 1.0 else each.div_(ctx.temperature)
        return (at_head, at_drawn, gradient * some, at_tail, None)


def _inside(scores: Tensor, tail: Tensor, none: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities within the tail, float [n, S]; 0 in rows without one."""
    cooled = scores if temperature == 1.0 else scores / temperature
    return (cooled - tail.unsqueeze(1)).masked_fill_(none, 0.0)


class _Standardised(torch.autograd.Function):
    """The divergence of the softmaxes of both sides' standardised scores, with its gradient written down."""

    @staticmethod
    def forward(ctx: Any, head: Tensor, teacher: TeacherRows) -> Tensor:
        t, real = teacher.temperature, ~teacher.padding
        theirs, _ = with_spread(teacher.scores, real)
        ours, spread = with_spread(head, real)
        asked, given = _log_shares(theirs, teacher.padding, t), _log_shares(ours, teacher.padding, t)
        wanted = asked.exp()
        loss: Tensor = torch.linalg.vecdot(wanted, asked.sub_(given).masked_fill_(teacher.padding, 0.0))
        ctx.temperature = t
        ctx.save_for_backward(given.exp_().sub_(wanted), ours, spread, real)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        slope, apart, spread, real = ctx.saved_tensors
        count = real.sum(dim=1, keepdim=True).clamp_min(1)
        # Through the deviation and the mean: what moves all scores alike, or spreads them, moves no standardised one.
        along = (slope * apart).sum(dim=1, keepdim=True) / count
        inner = (slope - apart * along) / spread
        inner -= inner.sum(dim=1, keepdim=True) / count
        return inner.masked_fill_(~real, 0.0).mul_((gradient / ctx.temperature).unsqueeze(1)), None


class _StandardisedWhole(torch.autograd.Function):
    """The same where no place is padding: standardising a row is then what torch does in one pass as layer norm."""

    @staticmethod
    def forward(ctx: Any, head: Tensor, teacher: TeacherRows) -> Tensor:
        t, width = teacher.temperature, head.shape[1:]
        theirs, _, _ = torch.native_layer_norm(teacher.scores, width, None, None, LEAST_SPREAD**2)
        ours, mean, over_spread = torch.native_layer_norm(head, width, None, None, LEAST_SPREAD**2)
        asked, given = theirs.div_(t).log_softmax(dim=1), ours.div_(t).log_softmax(dim=1)
        wanted = asked.exp()
        loss: Tensor = torch.linalg.vecdot(wanted, asked.sub_(given))
        ctx.temperature = t
        ctx.save_for_backward(given.exp_().sub_(wanted), head, mean, over_spread)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        slope, head, mean, over_spread = ctx.saved_tensors
        given = slope * (gradient / ctx.temperature).unsqueeze(1)
        asked = [True, False, False]
        back = torch.ops.aten.native_layer_norm_backward
        return back(given, head, head.shape[1:], mean, over_spread, None, None, asked)[0], None


def _log_shares(apart: Tensor, padding: Tensor, temperature: float) -> Tensor:
    """Return the log-softmax of a row's real places, float [n, K]; -inf at padding, and 0 all along an empty row."""
    empty = padding.all(dim=1, keepdim=True)
    cooled = apart / temperature
    return cooled.masked_fill_(padding & ~empty, -torch.inf).log_softmax(dim=1).masked_fill_(empty, 0.0)
