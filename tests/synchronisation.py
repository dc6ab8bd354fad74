"""What makes the host wait for a device, or a CUDA graph's capture fail: found by a dispatch mode anywhere."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# A value, or a shape that depends on values, that the host must know.
READS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_dim",
    "_unique2",
    "bincount",
    "histc",
    "repeat_interleave.Tensor",
}


class NoSynchronisation(TorchDispatchMode):
    """Raises where an operation reads a value back, or copies between devices other than without waiting."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.removesuffix(".default")
        if name in READS or name.split(".")[0] in READS:
            raise AssertionError(f"{func} makes the host wait")
        if name.startswith("index") and any(_is_bool(part) for part in _flat(args)):
            raise AssertionError(f"{func} by a boolean mask makes the host wait for its count")
        return func(*args, **(kwargs or {}))


def _flat(args: Any) -> list[Any]:
    return [part for arg in args for part in (arg if isinstance(arg, list | tuple) else [arg])]


def _is_bool(part: object) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype == torch.bool
