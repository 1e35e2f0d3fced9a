"""A training step on a GPU waits for nothing: it reads no number back that the host does not know already.

Fake tensors have shapes and no numbers, so whatever asks one for a number fails. They stand for tensors on a GPU here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from teaching import Remembered, Rows
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from stillhouse.distill.hard import HardObjective
from stillhouse.distill.method import WeightedMethod
from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.protocol import Objective, Places
from stillhouse.distill.soft import Soft
from stillhouse.models.build import build
from stillhouse.params.model import TrainingSpec, TransformerSpec
from stillhouse.train.loop import _Lessons
from stillhouse.train.optimizer import adamw

ROWS = Rows.drawn(positions=12, items=40)


def teacher() -> HardObjective:
    """People take no item twice: the softmax runs over what a position has not seen."""
    return HardObjective(histories=Remembered(ROWS))


def student(method: Soft) -> MixedObjective:
    """Listens to a teacher by ``method``."""
    return MixedObjective(
        Remembered(ROWS), Remembered(ROWS), alpha=0.2, temperature=1.0, methods=[WeightedMethod(method, 1.0)]
    )


def take_a_step(objective: Objective, places: Places | None) -> None:
    """Do what one step of the loop does on tensors, mixed precision and clipping included."""
    spec = TransformerSpec(kind="transformer", width=8, blocks=1, heads=2, length=4, dropout=0.1, positions="rotary")
    training = TrainingSpec(epochs=1)
    count = len(ROWS.scores)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build(spec, ROWS.scores.shape[1] - 1)
        lessons = _Lessons(model, objective, torch.bfloat16, None).train()
        optimizer = adamw(lessons, training)
        positions = {
            "targets": torch.ones(count, dtype=torch.int64),
            "weights": torch.ones(count),
            "users": torch.zeros(count, dtype=torch.int64),
            "steps": torch.zeros(count, dtype=torch.int64),
        }
        histories = torch.ones((4, 4), dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16):
            found = lessons(histories, positions, 0.5, places)
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(lessons.parameters(), 1.0)
        optimizer.step()
        assert next(model.parameters()).grad is not None


def known() -> Places:
    """Row u is position (u, t), which has seen t + 1 items."""
    return Places(np.arange(len(ROWS.scores)), ROWS.counts.numpy() - 1)


@pytest.mark.parametrize(
    "objective",
    [teacher, HardObjective, lambda: student(Soft()), lambda: student(Soft(standardise=True))],
    ids=["teacher", "all items", "soft", "standardised"],
)
def test_a_step_waits_for_nothing(objective: Callable[[], Objective]) -> None:
    take_a_step(objective(), known())


def test_a_step_that_has_to_ask_for_numbers_would_be_noticed() -> None:
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        take_a_step(teacher(), None)
