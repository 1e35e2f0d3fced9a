"""The optimiser of every training, and how fast it goes at each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from stillhouse.params.model import TrainingSpec

__all__ = ["adamw", "learning_rate", "set_learning_rate"]


def adamw(model: nn.Module, training: TrainingSpec, *, fused: bool = True) -> torch.optim.AdamW:
    """Return AdamW over the weights of ``model``; vectors (norms, biases) do not decay.

    Source: I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)


def learning_rate(training: TrainingSpec, step: int, planned: int) -> float:
    """Return the learning rate of optimiser step ``step``: a linear rise, then what the schedule says.

    Args:
        training: the peak rate, the steps of the rise and the schedule.
        step: counted from 0.
        planned: steps that the training takes if nothing stops it early, at least 1.

    >>> spec = TrainingSpec(learning_rate=0.5, warmup_steps=2)
    >>> [learning_rate(spec, step, 10) for step in range(3)]
    [0.25, 0.5, 0.5]
    >>> falling = TrainingSpec(learning_rate=0.5, warmup_steps=0, schedule="cosine")
    >>> [round(learning_rate(falling, step, 4), 3) for step in range(4)]
    [0.5, 0.427, 0.25, 0.073]
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    left = planned - training.warmup_steps
    done = (step - training.warmup_steps) / left if left > 0 else 1.0
    match training.schedule:
        case "cosine":
            return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        case "linear":
            return training.learning_rate * max(1.0 - done, 0.0)
        case "constant":
            return training.learning_rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Make ``rate`` the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
