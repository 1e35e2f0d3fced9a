"""A student in the form in which it is served: matrices as floats or as eight-bit codes."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Literal

import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillhouse.models.product_items import ProductItems
from stillhouse.models.quantised import dequantise, matrices, quantise
from stillhouse.package.compact import WIDEN

__all__ = ["exportable", "rounded"]

#: Bits of a byte.
_BYTE = 8


def exportable(model: nn.Module, *, int8: bool) -> nn.Module:
    """Return a copy of ``model`` to export: what is kept in few bits stays in few bits in the graph.

    It scores as `rounded`'s copy does, or as ``model`` itself where nothing is rounded. In the
    graph each matrix is one int8 initialiser and a ``DequantizeLinear`` node.

    Args:
        model: on the CPU, its weights float32 and plain (`stillhouse.models.quantised.keep_rounded`).
        int8: whether its matrices are kept as codes and scales.
    """
    other = copy.deepcopy(model).requires_grad_(False).eval()
    if int8:
        for layer, name in list(matrices(other)):
            # torch's check wants codes to be of the type of the weight, which they are not on purpose.
            parametrize.register_parametrization(layer, name, _Decoded(), unsafe=True)
    for layer in list(other.modules()):
        if isinstance(layer, ProductItems):
            bits = (layer.centroids.shape[1] - 1).bit_length()
            parametrize.register_parametrization(layer, "codes", _Packed(layer.codes.shape, bits), unsafe=True)
    return other


def rounded(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with every matrix rounded to what its codes stand for, as plain float32 weights."""
    other = copy.deepcopy(model).requires_grad_(False).eval()
    for layer, name in matrices(other):
        weight = layer.get_parameter(name)
        weight.copy_(dequantise(*quantise(weight)))
    return other


class _Decoded(nn.Module):
    """Keeps a weight as codes and scales, and gives it back when it is asked for."""

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is kept: codes int8, and scales in bfloat16, of which they are values."""
        codes, scales = quantise(weight)
        return codes, scales.bfloat16()

    def forward(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Return the weight, float32."""
        if not torch.onnx.is_in_onnx_export():
            return dequantise(codes, scales.float())
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (codes, _widened(scales, torch.float32)),
            attrs={"axis": 0},
            dtype=torch.float32,
            shape=codes.shape,
        )


class _Packed(nn.Module):
    """Keeps codes in as many bits as they need, and gives them as the int64 that arithmetic on them needs.

    They are kept in planes: the lowest bits of all codes, eight to a byte, then the next higher ones, and so on.
    """

    def __init__(self, shape: torch.Size, bits: int) -> None:
        """Keep codes of that shape, each below 2 ** ``bits``."""
        super().__init__()
        self._shape, self._bits = shape, bits

    def right_inverse(self, codes: Tensor) -> Tensor:
        """Return what is kept: uint8 [bits, ⌈number of codes / 8⌉]."""
        flat = nn.functional.pad(codes.flatten(), (0, -codes.numel() % _BYTE))
        planes = (flat >> _places(self._bits).unsqueeze(1)) & 1
        return (planes.view(self._bits, -1, _BYTE) << _places(_BYTE)).sum(dim=2).to(torch.uint8)

    def forward(self, planes: Tensor) -> Tensor:
        """Return the codes as int64 of their shape; all before the last step is bytes, for there may be many."""
        whole = _widened(planes, torch.uint8) if torch.onnx.is_in_onnx_export() else planes
        bits = _shifted(whole.unsqueeze(2), _places(_BYTE), "RIGHT") & 1
        worth = _shifted(bits, _places(self._bits).view(-1, 1, 1), "LEFT")
        codes = reduce(torch.bitwise_or, worth.unbind(0))
        return codes.flatten()[: self._shape.numel()].view(self._shape).to(torch.int64)


def _places(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8)


def _shifted(values: Tensor, places: Tensor, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """Return bytes moved by so many places; the exporter knows no shift of unsigned numbers."""
    if not torch.onnx.is_in_onnx_export():
        return values << places if direction == "LEFT" else values >> places
    shape = torch.broadcast_shapes(values.shape, places.shape)  # type: ignore[no-untyped-call]
    return torch.onnx.ops.symbolic(
        "BitShift", (values, places), attrs={"direction": direction}, dtype=torch.uint8, shape=shape
    )


def _widened(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``values`` as ``dtype``, by a node that the exporter does not work out: the file keeps them narrow."""
    to = {torch.float32: TensorProto.FLOAT, torch.uint8: TensorProto.UINT8}[dtype]
    return torch.onnx.ops.symbolic(WIDEN, (values,), attrs={"to": int(to)}, dtype=dtype, shape=values.shape)
