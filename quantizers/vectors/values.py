"""What counts as vectors: two axes, a row and a channel at least, and floats, which become float32 or float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

KEPT = (torch.float32, torch.float64)
WIDENED = (torch.float16, torch.bfloat16)
FLOATS = "float16, bfloat16, float32 or float64"


def check_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of rows and of channels. Raises: ValueError unless there are two axes and a channel."""
    if len(shape) != 2:
        raise ValueError(f"{name} has shape {list(shape)}, expected two axes: vectors and channels")
    if not shape[1]:
        raise ValueError(f"{name} has shape {list(shape)}, expected at least one channel")
    return shape[0], shape[1]


def check_dim(name: str, found: int, dim: int | None) -> None:
    """Raises: ValueError if `dim` is given and is not the number of channels that was found."""
    if dim is not None and found != dim:
        raise ValueError(f"{name} has vectors of {found} channels, expected {dim}")


def check_some(name: str, count: int) -> None:
    """Raises: ValueError for no rows."""
    if not count:
        raise ValueError(f"{name} has no vectors, expected at least one")


def widened(name: str, values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 unchanged. Raises: TypeError for any other dtype."""
    if values.dtype in KEPT:
        return values
    if values.dtype in WIDENED:
        return values.float()
    raise TypeError(f"{name} has dtype {str(values.dtype).removeprefix('torch.')}, expected {FLOATS}")


def check_dtype(name: str, dtype: "np.dtype[Any]") -> None:
    """Raises: TypeError unless an array of this dtype contains floats that torch has as well."""
    if not (dtype.kind == "f" and dtype.itemsize <= 8) and dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {dtype}, expected {FLOATS}")


def from_numpy(array: "np.ndarray[Any, Any]") -> Tensor:
    """The values of an array whose dtype has been checked, as float32 or float64; shares memory where it can."""
    target = np.dtype(np.float64 if array.dtype.itemsize == 8 else np.float32)
    values = np.require(array, target, ["C", "W"])
    # An axis of one element may have a negative stride even so, which torch refuses.
    return torch.from_numpy(values if min(values.strides) > 0 else values.copy())
