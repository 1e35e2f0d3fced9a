"""The running mean of a model's weights, which is often better than where training stands."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
        self._done = 0
        with torch.no_grad():
            # A recurrent layer that rounds keeps what it last computed with, which has no copy while it has a gradient.
            model.to(model.mask.device)
            self._mean = AveragedModel(model, multi_avg_fn=self._towards)
        # Torch takes the first weights that it is given as they are: also after a killed run was taken up.
        self._mean.n_averaged.fill_(1)

    @property
    def model(self) -> SequenceModel:
        """The model that computes with the mean."""
        return cast(SequenceModel, self._mean.module)

    def update(self, done: int) -> None:
        """Take in the weights that stand after ``done`` steps, at least 1."""
        self._done = done
        self._mean.update_parameters(self._model)

    def _towards(
        self,
        means: tuple[Tensor, ...] | list[Tensor],
        weights: tuple[Tensor, ...] | list[Tensor],
        number: Tensor | int,
    ) -> None:
        reach = min(self._reach, self._done / 10 + 1)
        get_ema_multi_avg_fn(math.exp(-1.0 / reach))(means, weights, number)  # type: ignore[no-untyped-call]
