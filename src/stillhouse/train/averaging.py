"""The running mean of a model's weights, which is often better than where training stands."""

from __future__ import annotations

import copy
import math

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stillhouse.models.protocol import SequenceModel

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential running mean of the weights of ``model``, and a model that computes with it.

    While few steps are done the mean reaches back less far, so that what was drawn at the start is soon forgotten.

    Sources: B. Polyak, A. Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM
    J. Control and Optimization 1992; D. Morales-Brotons, T. Vogels, H. Hendrikx, "Exponential
    Moving Average of Weights in Deep Learning: Dynamics and Benefits", TMLR 2024.
    """

    def __init__(self, model: SequenceModel, steps: float) -> None:
        """Begin with the weights of ``model``, on its device; the mean is to reach ``steps`` > 0 steps back."""
        self._model = model
        self._reach = steps
        with torch.no_grad():
            # A recurrent layer that rounds keeps what it last computed with, which has no copy while it has a gradient.
            model.to(model.mask.device)
            # Torch's own AveragedModel sends its count of steps to a GPU at every one, and waits for it.
            self._mean = copy.deepcopy(model)

    @property
    def model(self) -> SequenceModel:
        """The model that computes with the mean."""
        return self._mean

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Take in the weights that stand after ``done`` steps, at least 1."""
        reach = min(self._reach, done / 10 + 1)
        towards = get_ema_multi_avg_fn(math.exp(-1.0 / reach))  # type: ignore[no-untyped-call]
        towards(list(self._mean.parameters()), list(self._model.parameters()), done)
        for mean, buffer in zip(self._mean.buffers(), self._model.buffers(), strict=True):
            mean.copy_(buffer)
