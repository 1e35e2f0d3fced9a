"""Hard pseudo-labels: what the teacher would put first is learnt as if somebody had taken it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stillhouse.distill.heads import by_rank
from stillhouse.distill.method import Method, Said
from stillhouse.distill.protocol import PositionBatch
from stillhouse.distill.teacher_rows import TeacherRows

__all__ = ["PseudoLabels"]

#: Places of a list of labels that count the same, in the terms of `by_rank`.
_EVEN = 1e6


class PseudoLabels(Method):
    """The cross-entropy of the teacher's first k unseen items, against whatever the hard loss runs over.

    ``loss = sum_r w_r (logsumexp(scores) - scores[item_r])`` over places r < k, with w_r
    even, or proportional to ``exp(-r / decay)``. Its weight in the mix is the lambda of the papers.
    Temperature plays no part. A position without unseen items has the loss 0.

    Sources: D.-H. Lee, "Pseudo-Label", ICML 2013 workshop; for rankings, with weights that fall by
    place: J. Tang, K. Wang, "Ranking Distillation", KDD 2018.
    """

    name = "pseudo_label_loss"
    wants_draws = wants_unseen = wants_tail = False

    def __init__(self, k: int = 1, decay: float | None = None) -> None:
        """Take the first ``k`` items of the teacher's list, at least 1 (no more than the store holds)."""
        self._k, self._decay = k, _EVEN if decay is None else decay

    def prepare(self, batch: PositionBatch, teacher: TeacherRows) -> Mapping[str, Tensor]:
        """Return what each of the k labels counts."""
        return {"share": by_rank(~teacher.padding[:, : self._k], self._decay, None)}

    def loss(self, said: Said) -> Tensor:
        """Return the cross-entropy of the labels at each position, float [n]."""
        share = said.own["share"]
        scores = said.head[:, : share.shape[1]].masked_fill(share == 0, 0.0)
        return share.sum(dim=1) * said.log_candidates - (share * scores).sum(dim=1)
