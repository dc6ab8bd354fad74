"""Modules that wrap a model and forward every call to it: DistributedDataParallel, torch.compile and others.

The functions here give a wrapped model the names and the signature that it has without the wrapper.
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
"""Names of submodules that only wrappers have, for the module that they wrap."""

MODULE = "module"
"""The name in DistributedDataParallel, DataParallel, AveragedModel and DeepSpeed; modules that wrap nothing use it
too."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside all of its wrappers; the model itself if it has none."""
    while (name := _inner_name(model)) is not None:
        model = model.get_submodule(name)
    return model


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`model.named_modules()`, with the names that it would yield if nothing in the model were wrapped.

    A wrapper has the name of the module that it wraps, and comes before it.
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
    """A name from a checkpoint without the names that wrappers may have inserted, for use without the model."""
    return ".".join(each for each in name.split(".") if each not in (*INNER, MODULE))


def takes_anything(module: nn.Module) -> bool:
    """Whether a module's forward has the signature (*args, **kwargs), like that of a wrapper."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def _inner_name(module: nn.Module) -> str | None:
    """The name of the submodule to which a wrapper forwards calls; None if the module is not a wrapper."""
    children = dict(module.named_children())
    for name in INNER:
        if name in children:
            return name
    return MODULE if list(children) == [MODULE] and takes_anything(module) else None
