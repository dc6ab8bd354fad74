"""What makes the host wait for a device, or a CUDA graph's capture fail: found by a dispatch mode anywhere."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
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


READING_METHODS = ("__bool__", "__float__", "__index__", "__int__", "item", "numpy", "tolist")


@contextlib.contextmanager
def no_reading() -> Iterator[None]:
    """Raise where Python reads a tensor's value, in registered operations too, which hide it from a mode."""

    def refuse(name: str) -> Any:
        def refused(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError(f"Tensor.{name} makes the host wait")

        return refused

    with pytest.MonkeyPatch.context() as patch:
        for name in READING_METHODS:
            patch.setattr(torch.Tensor, name, refuse(name))
        yield
