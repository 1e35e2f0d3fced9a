"""Students that start from the teacher: its item table, cut to the student's width."""

from __future__ import annotations

from torch import Tensor

from stillhouse.distill.start import truncated
from stillhouse.models.product_codes import dealt, fit_codes
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.quantised import trained

__all__ = ["start_from"]


def start_from(student: SequenceModel, table: Tensor) -> None:
    """Make ``table``, cut to the student's width, the item table of a fresh student, in place.

    Columns beyond the teacher's width keep what was drawn. Of a student whose items share parts, these are
    fitted to the cut table instead.

    Args:
        student: a fresh one.
        table: float [n_items + 1, D], the teacher's.
    """
    items = student.items
    rows = items.weight.detach().clone()
    cut = truncated(table, min(rows.shape[1], table.shape[1]))
    rows[:, : cut.shape[1]] = cut
    rows[0] = 0.0
    if isinstance(items, ProductItems):
        fit_codes(items, dealt(rows, items.centroids.shape[0]))
    else:
        trained(items, "weight").data.copy_(rows)
