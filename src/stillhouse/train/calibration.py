"""How far scores must be stretched, and members weighed, so that their softmax is what held-out items follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.models.ensemble import Ensemble
from stillhouse.models.fitted import Fitted
from stillhouse.models.protocol import Recommender
from stillhouse.train.validation import ValidationSet

__all__ = ["calibrate", "coefficients"]

#: No coefficient falls below this: what is worth nothing is divided by a finite temperature.
_LEAST = 1e-3
#: Rounds over all coefficients, halvings of a step that overshot, and the change that ends the search.
_ROUNDS, _HALVINGS, _CLOSE = 40, 12, 1e-4
#: A step that promises less, in nats, is not taken: where scores are never wrong, the likelihood rises for ever.
_GAIN = 1e-6


def calibrate(model: Fitted | Ensemble, valid: ValidationSet, device: torch.device | str = "cpu") -> None:
    """Fit the few numbers of ``model`` that no training sets, so that held-out items are likeliest.

    Of a model in closed form that is its scale. Of an ensemble: first each member's
    temperature; then the members' weights and the scale, together where members are
    ``weighted``, the scale alone where they are not.

    Args:
        model: on ``device``, in evaluation mode; changed in place.
        valid: the held-out positions; items already seen are no candidates.
        device: where ``model`` wants its histories.
    """
    if isinstance(model, Fitted):
        model.scale.fill_(coefficients(*_evidence([model], valid, device))[0])
        return
    members = list(model.members.values())
    scores, targets = _evidence(members, valid, device)
    temperatures = [1.0 / coefficients([one], targets)[0] for one in scores]
    even = [1.0 / len(members)] * len(members)
    if model.combine == "weighted":
        found = coefficients([one / heat for one, heat in zip(scores, temperatures, strict=True)], targets)
        weights, scale = [one / sum(found) for one in found], sum(found)
    else:
        model.calibrate(temperatures=temperatures, weights=even, scale=1.0)
        weights, scale = even, coefficients(*_evidence([model], valid, device))[0]
    model.calibrate(temperatures=temperatures, weights=weights, scale=scale)


def coefficients(scores: Sequence[Tensor], targets: Tensor) -> list[float]:
    """Return the b under which the softmax of ``sum_k b_k * scores_k`` gives the targets the highest likelihood.

    The negative log-likelihood is convex in b; each b_k in turn takes a Newton step, a
    shorter one where the full one overshoots, until none moves any more. There is no
    chance in it: equal arguments give equal bits.

    Args:
        scores: K tables, float [n, n_items + 1]; -inf, in all at the same cells, is no candidate.
        targets: int64 [n], each a candidate of its row.

    Returns:
        K numbers, each at least 0.001.

    >>> coefficients([torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])], torch.tensor([0, 0, 0]))[0] > 0
    True
    """
    outside = torch.where(scores[0] == -torch.inf, scores[0], 0.0)
    finite = [one.masked_fill(outside != 0, 0.0) for one in scores]
    hits = [one.gather(1, targets.unsqueeze(1)).double().mean() for one in finite]
    found = [1.0 / len(scores)] * len(scores)
    for _ in range(_ROUNDS):
        before = list(found)
        for place in range(len(scores)):
            found[place] = _step(found, place, finite, outside, hits)
        if all(abs(new - old) <= _CLOSE * old for new, old in zip(found, before, strict=True)):
            break
    return found


def _step(
    found: Sequence[float], place: int, scores: Sequence[Tensor], outside: Tensor, hits: Sequence[Tensor]
) -> float:
    """Return coefficient ``place`` after one Newton step that makes the likelihood no worse."""
    now = found[place]
    logits = _mixed(found, scores) + outside
    probs = torch.softmax(logits, dim=1)
    own = scores[place]
    mean = (probs * own).sum(dim=1)
    spread = ((probs * own.square()).sum(dim=1) - mean.square()).double().mean()
    slope = mean.double().mean() - hits[place]
    if float(slope.square()) <= 2.0 * _GAIN * float(spread) or float(spread) <= 0.0:
        return now
    worst = _loss(found, logits, hits)
    # Far from the minimum the curvature says little: no step goes further than four times.
    wanted = min(max(now - float(slope / spread), now / 4.0, _LEAST), max(4.0 * now, _LEAST))
    for _ in range(_HALVINGS):
        tried = [*found[:place], wanted, *found[place + 1 :]]
        if _loss(tried, _mixed(tried, scores) + outside, hits) <= worst:
            return wanted
        wanted = (wanted + now) / 2.0
    return now


def _mixed(found: Sequence[float], scores: Sequence[Tensor]) -> Tensor:
    mixed = torch.zeros_like(scores[0])
    for weight, one in zip(found, scores, strict=True):
        mixed.add_(one, alpha=weight)
    return mixed


def _loss(found: Sequence[float], logits: Tensor, hits: Sequence[Tensor]) -> float:
    """Return the mean negative log-likelihood, nats."""
    hit = sum(weight * float(one) for weight, one in zip(found, hits, strict=True))
    return float(torch.logsumexp(logits, dim=1).double().mean()) - hit


def _evidence(
    models: Sequence[Recommender], valid: ValidationSet, device: torch.device | str
) -> tuple[list[Tensor], Tensor]:
    """Return each model's scores of held-out positions, -inf at what is no candidate, and the targets."""
    found = [valid.candidate_scores(model, device) for model in models]
    return [scores for scores, _ in found], found[0][1]
