"""Computed codes: they can be read, and writing into them raises an error instead of having no effect."""

import copy
from typing import Any

import torch
from torch import Tensor

# These names end like in-place operations, but write no values.
HARMLESS = {"requires_grad_", "retain_grad_", "detach_", "share_memory_", "rename_"}
HARMLESS_DUNDER = {"__index__", "__int__", "__invert__", "__iter__", "__init__"}


class ReadOnlyCodes(Tensor):
    """A tensor that refuses writes, as do its views. Results that are computed from it are plain tensors."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        target = options.get("out") if "out" in options else args[0] if _writes(name) and args else None
        if isinstance(target, ReadOnlyCodes):
            raise RuntimeError(
                f"{name} would write into codes that are computed from other state, without effect; call "
                "set_codebook to set the codes, or clone them to change a copy"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **options)
        source = args[0] if args else None
        if isinstance(result, Tensor) and isinstance(source, ReadOnlyCodes) and _is_view(result, source):
            return result.as_subclass(ReadOnlyCodes)
        return result

    def __deepcopy__(self, memo: Any) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            plain: Tensor = copy.deepcopy(self.as_subclass(Tensor), memo)
        return plain

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain: Any = self.detach().clone()
        return plain.__reduce_ex__(protocol)


def read_only(codes: Tensor) -> Tensor:
    """`codes`, to which nothing else refers, as a tensor that refuses writes."""
    return codes if torch.compiler.is_compiling() else codes.as_subclass(ReadOnlyCodes)


def _writes(name: str) -> bool:
    """Whether a function of that name writes into its first argument."""
    if name == "__setitem__" or (name.startswith("__i") and name.endswith("__") and name not in HARMLESS_DUNDER):
        return True
    return name.endswith("_") and not name.endswith("__") and name not in HARMLESS


def _is_view(result: Tensor, source: Tensor) -> bool:
    aliases: Any = torch._C
    return type(result) is Tensor and bool(aliases._is_alias_of(result, source))
