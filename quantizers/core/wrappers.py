"""Modules that wrap a model and pass every call on: DistributedDataParallel, torch.compile and others.

A model has the same names and the same signature whether it is wrapped or not.
"""

import inspect
from collections.abc import Iterator

from torch import nn

INNER = (
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",  # FullyShardedDataParallel
    "_checkpoint_wrapped_module",  # torch.distributed's activation checkpointing
    "_forward_module",  # Lightning Fabric
    "_original_module",
)
"""Names under which wrappers alone hold what they wrap."""

MODULE = "module"
"""The name of DistributedDataParallel, DataParallel, AveragedModel and DeepSpeed, which other modules have too."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside all of its wrappers; the model itself where there are none."""
    while (name := _inner_name(model)) is not None:
        model = model.get_submodule(name)
    return model


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`model.named_modules()` with the names that it would give if nothing in the model were wrapped.

    A wrapper has the name of what it wraps, and comes before it.
    """
    plain: dict[str, str] = {"": ""}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if name:
            outer, _, last = name.rpartition(".")
            wraps = _inner_name(modules[outer]) == last
            plain[name] = plain[outer] if wraps else f"{plain[outer]}.{last}".removeprefix(".")
        yield plain[name], module


def without_wrappers(name: str) -> str:
    """A name from a checkpoint without the parts that a wrapper may have put in; the model is not at hand."""
    return ".".join(part for part in name.split(".") if part not in (*INNER, MODULE))


def takes_anything(module: nn.Module) -> bool:
    """Whether a module's forward has the signature (*args, **kwargs), as one that passes calls on has."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def _inner_name(module: nn.Module) -> str | None:
    """The name of the one submodule that a wrapper passes calls on to; None where the module is no wrapper."""
    children = dict(module.named_children())
    for name in INNER:
        if name in children:
            return name
    return MODULE if list(children) == [MODULE] and takes_anything(module) else None
