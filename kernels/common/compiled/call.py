"""Calls into the compiled library with tensors as arguments."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.library import library

Argument = Tensor | int | float | None
WORK_PER_THREAD = 2**16  # multiply-adds below which another thread costs more than it saves


def call(function: str, arguments: Sequence[Argument]) -> None:
    """Call a function of the library: tensors as pointers (contiguous, on the CPU), int as int64, None as null."""
    getattr(library(), function)(*[_argument(argument) for argument in arguments])


def threads(work: int) -> int:
    """Return the number of threads for an amount of work in multiply-adds, at most torch's number of threads."""
    return max(1, min(torch.get_num_threads(), work // WORK_PER_THREAD))


def _argument(value: Argument) -> "ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double":
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        if not value.is_contiguous() or value.device.type != "cpu":
            raise ValueError(
                f"got a tensor on {value.device} with strides {value.stride()}; expected a contiguous one on cpu"
            )
        if value.is_floating_point() and value.dtype.itemsize < 4:
            raise TypeError(f"got a tensor of {value.dtype}; expected torch.float32 or torch.float64")
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)


def suffix(tensor: Tensor) -> str:
    """Return the suffix of the function for the tensor's dtype, float32 or float64."""
    return "_double" if tensor.dtype == torch.float64 else ""
