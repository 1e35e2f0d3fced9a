"""An item table of few vectors: each item is a word of codes, and each code stands for a part of its vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.params.model import ProductSpec

__all__ = ["ProductItems"]


class ProductItems(nn.Module):
    """The rows of a product-quantised item table; it stands where an ``nn.Embedding`` would.

    A row is cut into ``splits`` parts. For each part there are ``codes`` vectors that all
    items share (the centroids), and an item's part is the one that its code names: served, an
    item costs as many bits a part as tell the codes apart. Codes are given before training
    (`stillhouse.models.product_codes`) and never move; centroids are trained.

    Source: A. V. Petrov, C. Macdonald, "RecJPQ: Training Large-Catalogue Sequential
    Recommenders", WSDM 2024.

    >>> items = ProductItems(3, 4, ProductSpec(splits=2, codes=2), std=1.0)
    >>> _ = items.codes.copy_(torch.tensor([[0, 0], [0, 1], [1, 1]]))
    >>> rows = items(torch.tensor([0, 1, 2]))
    >>> rows[0].tolist(), bool((rows[1, :2] == rows[2, :2]).all()), bool((rows[1, 2:] == rows[2, 2:]).any())
    ([0.0, 0.0, 0.0, 0.0], True, False)
    """

    codes: Tensor

    def __init__(self, n_items: int, width: int, spec: ProductSpec, *, std: float) -> None:
        """Make centroids of spread ``std``, and codes that mean nothing yet: drawn evenly.

        Args:
            n_items: ≥ 1, padding not counted.
            width: of a row; ``spec.splits`` divides it.
            spec: how many parts, and how many centroids each.
            std: of the centroids' numbers.
        """
        super().__init__()
        self.centroids = nn.Parameter(torch.empty(spec.splits, spec.codes, width // spec.splits))
        nn.init.normal_(self.centroids, std=std)
        drawn = torch.randint(spec.codes, (n_items, spec.splits))
        self.register_buffer("codes", drawn.to(torch.uint8))

    @property
    def weight(self) -> Tensor:
        """The table written out, float [n_items + 1, width]: row 0 (padding) is 0; gradients go to the centroids."""
        splits, codes, part = self.centroids.shape
        first = codes * torch.arange(splits, device=self.codes.device)
        places = self.codes.to(torch.int64) + first
        rows = nn.functional.embedding(places, self.centroids.reshape(splits * codes, part)).flatten(1)
        return torch.cat([rows.new_zeros(1, rows.shape[1]), rows])

    def forward(self, items: Tensor) -> Tensor:
        """Return the rows of ``items``, int64 [...] in 0..n_items: float [..., width]."""
        return nn.functional.embedding(items, self.weight)
