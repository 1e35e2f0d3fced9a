"""What the arithmetic runs on, and how it is made to repeat."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillhouse.errors import ParamsError
from stillhouse.params.model import ComputeSpec

if TYPE_CHECKING:
    import lightning_fabric

__all__ = ["derived_seed", "device_of", "emulates_bfloat16", "fabric_of", "repeatable", "scoring"]

_MIXED = {"bf16": torch.bfloat16, "16": torch.float16}

#: What torch calls a processor's instructions that multiply bfloat16, on x86 and on ARM.
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx10_1", "avx10_2", "bf16", "sve_bf16")
#: Parameters of glibc's mallopt, and what they are by default.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TRIM_DEFAULT, _MMAP_DEFAULT = 128 * 1024, 65_536


def device_of(compute: ComputeSpec) -> torch.device:
    """Return the device of ``compute``.

    Raises:
        ParamsError: there is no such device here, or it has no such precision.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ParamsError("device cuda must have a GPU, found none: set auto or cpu (params.yaml: compute.device)")
    if compute.device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if compute.precision == "16-mixed":  # Fabric would train in bfloat16, and only warn
        raise ParamsError(
            "precision 16-mixed must have a GPU, found that this runs on the processor: set bf16-mixed or 32-true "
            "(params.yaml: compute.precision)"
        )
    return torch.device("cpu")


def fabric_of(compute: ComputeSpec) -> lightning_fabric.Fabric:
    """Return a launched Fabric on one device of ``compute``, for training.

    Raises:
        ParamsError: there is no such device here, or it has no such precision.
    """
    import lightning_fabric  # as long an import as torch's own, which whoever only scores is spared

    accelerator = device_of(compute).type
    fabric = lightning_fabric.Fabric(accelerator=accelerator, devices=1, precision=compute.precision)
    fabric.launch()
    return fabric


def emulates_bfloat16(compute: ComputeSpec) -> bool:
    """Say whether ``compute`` asks a processor for bfloat16 that has no instructions for it, which costs it time."""
    if not compute.precision.startswith("bf16") or device_of(compute).type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return not any(able.get(name) for name in _BFLOAT16)


def scoring(compute: ComputeSpec) -> AbstractContextManager[object]:
    """Return the context, of the calling thread alone, in which a model whose weights were read scores.

    Raises:
        ParamsError: there is no such device here, or it has no such precision.
    """
    bits, _, kind = compute.precision.partition("-")
    return torch.autocast(device_of(compute).type, dtype=_MIXED[bits]) if kind == "mixed" else nullcontext()


@contextmanager
def repeatable(compute: ComputeSpec) -> Iterator[None]:
    """Hold thread count and algorithms fixed inside the block, and put them back after it.

    With these fixed, the same inputs give the same bits on one platform. Freed memory
    stays with the process meanwhile: a step frees and takes the same large tables, and
    getting each from the kernel afresh costs a quarter of a small model's step.
    """
    threads = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(compute.threads)
    # As `use_deterministic_algorithms`, which loads torch's compiler to tell it too: a second of processor time.
    torch.set_deterministic_debug_mode("error")
    # Filling every fresh tensor guards against reading it unwritten; nothing here does, and it costs a tenth.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _mallopt(_MMAP_MAX, 0)
    _mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        _mallopt(_MMAP_MAX, _MMAP_DEFAULT)
        _mallopt(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _mallopt(parameter: int, value: int) -> None:
    """Set one of glibc's allocator parameters; elsewhere there is nothing to set."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(ctypes.c_int(parameter), ctypes.c_int(value))


def derived_seed(*parts: int) -> int:
    """Return a seed that depends on every one of ``parts`` (each ≥ 0), for torch or NumPy.

    >>> derived_seed(1, 2) == derived_seed(2, 1)
    False
    """
    return int(np.random.SeedSequence((len(parts), *parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))
