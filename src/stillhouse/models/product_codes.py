"""Which items share a part of their vectors: codes from what people took, given before training."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.models.fitted import TrainingEvents
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.quantised import trained

__all__ = ["assign_codes", "dealt", "fit_codes", "item_components", "quantile_codes"]

#: Components that are followed beside those wanted, and rounds of following: with them the wanted ones are exact
#: to a few digits, and codes need only their order.
_SPARE, _ROUNDS = 16, 8
#: Decimals of a component's numbers (they are at most 1) in which items can differ; below lies the noise of sums.
_DECIMALS = 9
#: Rounds of k-means, and points whose distances to all centroids are held at once.
_STEPS, _POINTS = 30, 1 << 16


def assign_codes(model: SequenceModel, sequences: Sequences) -> None:
    """Give the items of ``model`` their codes, in place; a model whose items have rows of their own stays as it is.

    The training rows, as a matrix of users and items, are taken apart into as many
    components as a row has parts. Along component m the items stand in an order; part m's
    codes cut that order into equal shares. So items that the same people take share parts.
    This is for a model that has learnt nothing yet: to a trained one its codes belong as its
    weights do, and new items find theirs by `stillhouse.models.warm.widen`.

    Args:
        model: its items are those of ``sequences``.
        sequences: tonight's.

    Raises:
        TrainingError: there is no training event.

    Source: A. V. Petrov, C. Macdonald, "RecJPQ: Training Large-Catalogue Sequential
    Recommenders", WSDM 2024 (the strategy "SVD"); ties go by index here instead of by noise.
    """
    items = model.items
    if isinstance(items, ProductItems):
        splits, codes, _ = items.centroids.shape
        items.codes.copy_(quantile_codes(item_components(sequences, splits), codes))


def fit_codes(items: ProductItems, table: Tensor, counts: Tensor | None = None) -> None:
    """Give ``items`` the codes and centroids that come nearest to the rows of ``table``, in place.

    Each part's centroids are the means of k-means over that part of all rows. A table that has
    been trained tells far better than who took what which items may share parts.

    Args:
        items: on the CPU, of any precision.
        table: float [n_items + 1, width]; row 0 is padding and does not count.
        counts: float [n_items + 1], above 0: what each row counts for, such as how often its item is taken;
            ``None``: all alike. It moves the means, and what is drawn to begin with.

    Source: H. Jégou, M. Douze, C. Schmid, "Product Quantization for Nearest Neighbor Search",
    IEEE Transactions on Pattern Analysis and Machine Intelligence 2011; S. P. Lloyd, "Least
    Squares Quantization in PCM", IEEE Transactions on Information Theory 1982, from rows drawn
    by a fixed seed.
    """
    centroids = trained(items, "centroids")
    splits, codes, part = centroids.shape
    rows = table[1:].to(centroids.dtype).view(-1, splits, part)
    shares = torch.ones(len(rows)) if counts is None else counts[1:].float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for split in range(splits):
            points = rows[:, split].contiguous()
            drawn = _drawn(counts, len(points), codes, generator)
            means = torch.cat([points[drawn], centroids[split, len(drawn) :]])
            for _ in range(_STEPS):
                means = _means(points, shares, _nearest(points, means), means)
            items.codes[:, split] = _nearest(points, means).to(torch.uint8)
            centroids[split] = means


def dealt(table: Tensor, splits: int) -> Tensor:
    """Return ``table`` with its columns in an order that gives each of ``splits`` parts its share of the spread.

    Columns are dealt to the parts from the widest to the narrowest, back and forth. Inner products
    stay what they are, so a model that has learnt nothing yet may start from either order; in
    this one the same number of shared parts comes nearer to the table.

    Args:
        table: float [n_items + 1, width]; row 0 is padding and does not count.
        splits: they divide the width.

    Source: T. Ge, K. He, Q. Ke, J. Sun, "Optimized Product Quantization", IEEE Transactions on
    Pattern Analysis and Machine Intelligence 2014 (eigenvalue allocation; columns are taken
    to be principal directions).

    >>> dealt(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]]), 2)[1].tolist()
    [4.0, 1.0, 3.0, 2.0]
    """
    widest = table[1:].square().sum(dim=0).argsort(descending=True, stable=True).view(-1, splits)
    widest[1::2] = widest[1::2].flip(1)
    return table[:, widest.T.flatten()]


def item_components(sequences: Sequences, count: int) -> Tensor:
    """Return the leading right singular vectors of the matrix of users and items, float64 [n_items, count].

    The matrix holds 1 where a user has a training row with an item. Where it has fewer
    components than ``count`` the others mean nothing, but are finite and always the same.

    Source: N. Halko, P. G. Martinsson, J. A. Tropp, "Finding Structure with Randomness",
    SIAM Review 2011 (subspace iteration); from a fixed seed.
    """
    taken = _taken(sequences)
    generator = torch.Generator().manual_seed(0)
    size = min(count + _SPARE, *taken.shape)
    basis = torch.randn(taken.shape[1], size, dtype=torch.float64, generator=generator)
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(torch.sparse.mm(taken.T, torch.sparse.mm(taken, basis))).Q
    # Within the subspace, the components in order of their weight.
    _, _, turned = torch.linalg.svd(torch.sparse.mm(taken, basis), full_matrices=False)
    found = (basis @ turned.T)[:, :count]
    return torch.nn.functional.pad(found, (0, count - found.shape[1]))


def quantile_codes(components: Tensor, codes: int) -> Tensor:
    """Return the share of its component's order that each item falls into, uint8 [n_items, components].

    Args:
        components: float64 [n_items, components]; items that are equal in nine decimals stand in order of their index.
        codes: shares, 1 to 256; they differ in size by at most one item.

    >>> quantile_codes(torch.tensor([[0.3], [0.1], [0.2], [0.1]]), 2).flatten().tolist()
    [1, 0, 1, 0]
    """
    order = components.round(decimals=_DECIMALS).argsort(dim=0, stable=True)
    ranks = order.argsort(dim=0, stable=True)
    return (ranks * codes // len(components)).to(torch.uint8)


def _drawn(counts: Tensor | None, points: int, codes: int, generator: torch.Generator) -> Tensor:
    """Return as many of ``points`` as there are ``codes``, or all, none twice."""
    if counts is None:
        return torch.randperm(points, generator=generator)[:codes]
    return torch.multinomial(counts[1:].float(), min(codes, points), generator=generator)


def _nearest(points: Tensor, means: Tensor) -> Tensor:
    return torch.cat([torch.cdist(some, means).argmin(dim=1) for some in torch.split(points, _POINTS)])


def _means(points: Tensor, shares: Tensor, codes: Tensor, before: Tensor) -> Tensor:
    """Return the mean of each code's points, weighted by their shares; one that has none stays where it was."""
    weights = shares.to(points.dtype).unsqueeze(1)
    sums = torch.zeros_like(before).index_add_(0, codes, weights * points)
    totals = torch.zeros_like(before[:, :1]).index_add_(0, codes, weights)
    return torch.where(totals > 0, sums / totals.clamp_min(torch.finfo(totals.dtype).tiny), before)


def _taken(sequences: Sequences) -> Tensor:
    events = TrainingEvents.of(sequences, 1)
    shape = (sequences.n_users, sequences.n_items)
    pairs = torch.unique(events.users * shape[1] + events.items - 1)
    cells = torch.stack([pairs // shape[1], pairs % shape[1]])
    return torch.sparse_coo_tensor(
        cells, torch.ones(len(pairs), dtype=torch.float64), shape, is_coalesced=True, check_invariants=True
    )
