"""Weights in eight bits: how a matrix is rounded, and a model that is trained with its matrices rounded.

Every weight of two dimensions or more is rounded row by row, a row being what stands
under one index of the first dimension: one item, one output channel of a linear layer,
one position. The codes of a row run from -127 to 127 and share one scale,

    scale = bfloat16(max |w| / 127),  code = round(w / scale),  w ≈ code * scale.

Vectors (biases, norms) stay as they are: they are a thousandth of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["dequantise", "keep_rounded", "matrices", "quantise", "round_in_training", "trained"]

#: Largest code; -128 is left out, so that codes are symmetric about 0.
_LARGEST = 127
#: A row whose values all lie below is a row of zeros: its scale would leave the range in which floats are exact.
_NOTHING = 1e-30
#: What torch calls a weight that a parametrisation stands before.
_BEHIND = "parametrizations.{}.original"


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``weight`` as codes and scales, no value further from what it stands for than half its row's scale.

    Quantising what `dequantise` gives returns the same codes and scales: 127 times a
    bfloat16 is exact in float32.

    Args:
        weight: float [rows, ...], finite.

    Returns:
        codes int8 of the same shape, and scales float32 [rows], each a bfloat16's value,
        0 for a row of zeros (or of values below 1e-30).

    >>> codes, scales = quantise(torch.tensor([[1.0, -2.0, 0.1]]))
    >>> codes.tolist(), round(scales.item(), 3)
    ([[64, -127, 6]], 0.016)
    """
    rows = weight.detach().float().flatten(1)
    largest = rows.abs().amax(dim=1)
    scales = torch.where(largest < _NOTHING, 0.0, largest / _LARGEST).bfloat16().float()
    steps = torch.where(scales > 0.0, scales, 1.0).unsqueeze(1)
    codes = (rows / steps).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return codes.view(weight.shape), scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """Return what int8 ``codes`` [rows, ...] under ``scales`` float32 [rows] stand for: float32 of the same shape."""
    return codes.float() * scales.view(-1, *[1] * (codes.ndim - 1))


def matrices(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Give every weight of two dimensions or more as the module that holds it and its name there."""
    for layer in list(model.modules()):
        for name, weight in list(layer.named_parameters(recurse=False)):
            if weight.ndim > 1:
                yield layer, name


def round_in_training(model: nn.Module) -> None:
    """Let ``model`` compute with its matrices rounded, and learn as if they were not.

    Each time a matrix is used its rounded values stand for it; their gradient goes
    to the values behind them as it is (straight through). So what is validated in
    training is what will be served. The weights that are trained, saved and loaded
    keep their names and stay float: ``state_dict`` shows nothing of the rounding.

    Source: Y. Bengio, N. Léonard, A. Courville, "Estimating or Propagating Gradients
    Through Stochastic Neurons for Conditional Computation", 2013 (the estimator);
    B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018 (its use in training).
    """
    for layer, name in matrices(model):
        parametrize.register_parametrization(layer, name, _Rounded())
    model.register_state_dict_post_hook(_as_if_plain)  # type: ignore[no-untyped-call]
    model.register_load_state_dict_pre_hook(_from_plain)  # type: ignore[no-untyped-call]


def trained(layer: nn.Module, name: str) -> nn.Parameter:
    """Return the weight of ``layer`` that is trained: itself, or the values behind its rounded ones."""
    if not parametrize.is_parametrized(layer, name):
        return layer.get_parameter(name)
    return layer.get_parameter(_BEHIND.format(name))


def keep_rounded(model: nn.Module) -> None:
    """Make the values that ``model`` computes with its weights, in place; nothing stands before them any more.

    It scores as before and learns as any model does. A model that `round_in_training` did not
    change stays as it is.
    """
    for layer in list(model.modules()):
        for name in list(layer.parametrizations) if parametrize.is_parametrized(layer) else ():  # type: ignore[arg-type]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


class _Rounded(nn.Module):
    """Stands between a weight and whoever uses it."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` rounded, of its type; the gradient passes unchanged."""
        rounded: Tensor = _StraightThrough.apply(weight)  # type: ignore[no-untyped-call]
        return rounded


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return dequantise(*quantise(weight)).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _names(model: nn.Module, prefix: str) -> dict[str, str]:
    """Return the plain name of each rounded weight by the name that torch has for it."""
    return {
        f"{prefix}{place}{_BEHIND.format(name)}": f"{prefix}{place}{name}"
        for path, layer in model.named_modules()
        if parametrize.is_parametrized(layer)
        for place in (f"{path}." if path else "",)
        for name, changes in layer.parametrizations.items()
        if any(isinstance(change, _Rounded) for change in changes)
    }


def _as_if_plain(model: nn.Module, state: MutableMapping[str, Tensor], prefix: str, _: object) -> None:
    for behind, plain in _names(model, prefix).items():
        state[plain] = state.pop(behind)


def _from_plain(model: nn.Module, state: MutableMapping[str, Tensor], prefix: str, *_: object) -> None:
    for behind, plain in _names(model, prefix).items():
        if plain in state:
            state[behind] = state.pop(plain)
