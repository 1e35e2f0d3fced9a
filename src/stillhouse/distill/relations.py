"""Relational matching: positions lie to each other in the student's space as they do in the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.distill.method import StateMethod
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["Relations", "angles", "distances", "gram"]

#: Smallest squared distance of two positions: the root's gradient stays finite where they are one.
_LEAST = 1e-8


class Relations(StateMethod):
    """Huber's loss between both sides' distances of pairs, and between their angles of triples.

    ``loss = distance * mean huber(d_ij / mean d, d^T_ij / mean d^T) + angle * mean huber(cos_ijk, cos^T_ijk)``
    over some ``positions`` of the batch, drawn anew every step, so that the cost does not grow with the
    batch. Where the store holds the teacher's states (``export_soft_targets.hidden``) they are its side; else
    the roots of the probabilities of its stored items, whose distance is Hellinger's: positions
    are close where the teacher would recommend alike.

    Source: W. Park, D. Kim, Y. Lu, M. Cho, "Relational Knowledge Distillation", CVPR 2019.
    """

    name = "relation_loss"
    reads_states = True

    def __init__(self, *, positions: int = 64, distance: float = 1.0, angle: float = 2.0) -> None:
        """Weigh distances and angles among ``positions`` of a batch, at least 3."""
        self._positions, self._distance, self._angle = positions, distance, angle

    def loss(self, states: Tensor, teacher: TeacherRows, held: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar; 0 where fewer than three positions can be compared."""
        known = held.nonzero().squeeze(1)
        chosen = known[torch.randperm(len(known), device=known.device)[: self._positions]]
        if len(chosen) < 3:
            return states.sum() * 0.0
        theirs = gram(_vectors(teacher, chosen).to(states.dtype))
        ours = gram(states.index_select(0, chosen))
        loss = states.new_zeros(())
        if self._distance:
            loss = loss + self._distance * functional.smooth_l1_loss(distances(ours), distances(theirs))
        if self._angle:
            loss = loss + self._angle * functional.smooth_l1_loss(angles(ours), angles(theirs))
        return loss


def gram(vectors: Tensor) -> Tensor:
    """Return the inner products of M vectors with each other, float [M, M]."""
    return vectors @ vectors.T


def distances(products: Tensor) -> Tensor:
    """Return the distances of M vectors over their mean, float [M, M], given their `gram` matrix; 0 to themselves.

    >>> distances(gram(torch.tensor([[0.0], [3.0]]))).round(decimals=2)
    tensor([[0., 1.],
            [1., 0.]])
    """
    apart = _apart(products)
    others = len(products) * (len(products) - 1)
    return apart / (apart.sum() / others).clamp_min(_LEAST)


def angles(products: Tensor) -> Tensor:
    """Return the cosine at j between i and k, float [M, M, M] as [j, i, k], given `gram`; 0 where i or k is j.

    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> angles(gram(corner))[0].round(decimals=2)
    tensor([[0., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    at = products.diagonal()
    inner = products.unsqueeze(0) - products.unsqueeze(2) - products.unsqueeze(1) + at[:, None, None]
    apart = _apart(products)
    nothing = apart == 0
    over = torch.where(nothing, 0.0, 1.0 / apart.masked_fill(nothing, 1.0))
    return inner * over.unsqueeze(2) * over.unsqueeze(1)


def _apart(products: Tensor) -> Tensor:
    at = products.diagonal()
    squared = (at.unsqueeze(1) + at.unsqueeze(0) - 2.0 * products).clamp_min(_LEAST)
    itself = torch.eye(len(products), dtype=torch.bool, device=products.device)
    return squared.sqrt().masked_fill(itself, 0.0)


def _vectors(teacher: TeacherRows, chosen: Tensor) -> Tensor:
    """Return what stands for the teacher's view of each chosen position, float [M, d]."""
    if teacher.hidden is not None:
        return teacher.hidden.index_select(0, chosen)
    items, probs = teacher.items.index_select(0, chosen), teacher.probs.index_select(0, chosen)
    share = probs / probs.sum(dim=1, keepdim=True).clamp_min(1e-12)
    named, place = torch.unique(items, return_inverse=True)
    table = share.new_zeros((len(items), len(named)))
    return table.scatter_(1, place, share.sqrt())
