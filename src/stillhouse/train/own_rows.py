"""Items that are to share parts, trained with rows of their own first: the parts are fitted to what these became.

Codes are given once and never move, so they can be no better than the table that they are fitted to. A teacher's table,
cut to the student's width, knows nothing of what the student makes of it; the rows of the same student, trained, do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from stillhouse.data.sequences import Sequences
from stillhouse.models.build import build
from stillhouse.models.fitted import TrainingEvents, counts
from stillhouse.models.product_codes import dealt, fit_codes
from stillhouse.models.product_items import ProductItems
from stillhouse.models.protocol import SequenceModel
from stillhouse.models.quantised import trained
from stillhouse.params.model import GruSpec, TransformerSpec
from stillhouse.reporting import Reporter
from stillhouse.train.compute import repeatable
from stillhouse.train.job import Job, Outcome
from stillhouse.train.loop import train
from stillhouse.train.named import Named

__all__ = ["train_rows_first"]


def train_rows_first(
    model: SequenceModel,
    items: ProductItems,
    spec: TransformerSpec | GruSpec,
    begin: Callable[[SequenceModel], None] | None,
    events: Sequences,
    job: Job,
    reporter: Reporter,
) -> Outcome:
    """Train ``model``, whose items share parts, in place: first with a row for each item, then with the parts.

    Both trainings follow the whole schedule of their learning rate, and share the objective, whose progress runs
    through them as through one. Parts are fitted to the best rows of the first, items counting by how often they
    were taken. A run that is killed goes on in the training that it was in; the first, done, is taken as it is.

    Args:
        model: of ``spec``, cold.
        items: the model's.
        spec: of the model.
        begin: what gives a cold model more than random weights.
        events: what people took; what the job learns from may hold more, such as copies.
        job: the whole; its ``training.own_rows`` above 0, of two epochs or more.
        reporter: hears of the first training under ``own_rows/``.

    Returns:
        that of the second training, with the epochs of both.

    Raises:
        TrainingError: as `stillhouse.train.loop.train`.

    Source: S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016 (trained weights fall into shared ones, which
    are trained further); P. Stock et al., "And the Bit Goes Down: Revisiting the Quantization of Neural Networks",
    ICLR 2020 (product codes, under a teacher). Weights of items in place of the activations' are ours.
    """
    epochs = min(max(1, round(job.training.own_rows * job.training.epochs)), job.training.epochs - 1)
    rest = job.training.epochs - epochs
    parted = epochs / (epochs + rest)
    home = job.resume / "own_rows"
    home.mkdir(exist_ok=True)
    rows = build(spec.model_copy(update={"items": None}), model.n_items, seed=job.seed)
    with repeatable(job.compute):
        if begin is not None:
            begin(rows)
        _deal(rows, items.centroids.shape[0])
    first = replace(job, training=job.training.model_copy(update={"epochs": epochs}), resume=home, covers=(0.0, parted))
    before = train(rows, first, Named(reporter, "own_rows"))
    with repeatable(job.compute):
        _take_over(model, items, rows, events)
    second = replace(job, training=job.training.model_copy(update={"epochs": rest}), covers=(parted, 1.0))
    found = train(model, second, reporter)
    return replace(found, epochs=before.epochs + found.epochs, best_epoch=before.epochs + found.best_epoch)


def _deal(rows: SequenceModel, splits: int) -> None:
    """Give each part of a row its share of the spread, while the order of columns means nothing yet."""
    table = trained(rows.items, "weight")
    table.data.copy_(dealt(table.detach(), splits))


def _take_over(model: SequenceModel, items: ProductItems, rows: SequenceModel, events: Sequences) -> None:
    """Give ``model`` the weights of ``rows``, and its ``items`` the parts that come nearest to theirs."""
    others = {name: tensor for name, tensor in rows.state_dict().items() if not name.startswith("items.")}
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("items.")}
    model.load_state_dict(others | own)
    taken = counts(TrainingEvents.of(events, 1), model.n_items, 1)[0]
    fit_codes(items, trained(rows.items, "weight").detach(), torch.clamp(taken, min=1.0))
