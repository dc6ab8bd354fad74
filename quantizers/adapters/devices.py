"""The device and dtype of a quantizer in a model, and what happens if values are missing.

The `meta` device holds shapes and no values. Libraries build models on it and fill them from a checkpoint.
Afterwards a model may still hold its own quantizer there, if the checkpoint does not have its weights.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter


def device_of(*modules: nn.Module) -> torch.device:
    """The device of the first tensor of the modules that has values; `meta` if none has, the CPU if there is no
    tensor."""
    tensors = list(itertools.chain.from_iterable(map(_tensors, modules)))
    first = next((tensor for tensor in tensors if not tensor.is_meta), next(iter(tensors), None))
    return torch.device("cpu") if first is None else first.device


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype that a module was cast to; float32 for a module without tensors."""
    if isinstance(module, Adapter):
        return module.dtype
    return next((tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()), torch.float32)


def move_to(adapter: Adapter, device: torch.device, dtype: torch.dtype, *, already_built: bool) -> Adapter:
    """Move an adapter to the model's device and dtype.

    Parameters that were built on `meta`, for example inside `from_pretrained` of transformers, have no values to
    move and stay there. Moving to `meta` discards values. It therefore happens only to a quantizer that was built
    from a name, not to one that was `already_built` and may be trained; nor inside a library's loader, which
    builds parameters on `meta` and needs the values of buffers.
    """
    adapter = adapter.to(dtype)
    if device.type == "meta" and (already_built or builds_on_meta()):
        return adapter
    return adapter._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def materialize(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to a device; its submodules on `meta` get initial values from their `reset_parameters`.

    Raises: ValueError for a submodule on `meta` without that method.
    """
    if device.type == "meta":
        return module.to(device)
    for name, submodule in module.named_modules():
        if not any(tensor.is_meta for tensor in _tensors(submodule, recurse=False)):
            continue
        reset = getattr(submodule, "reset_parameters", None)
        if reset is None:
            raise ValueError(
                f"{name or 'the module'} of {type(module).__name__}, a {type(submodule).__name__}, is on meta, "
                "without values, and has no method reset_parameters that could draw them: build the model anew"
            )
        submodule.to_empty(device=device, recurse=False)
        reset()
    return module.to(device)


def is_on_meta(module: nn.Module) -> bool:
    """Whether a tensor of a module is on `meta`."""
    return any(tensor.is_meta for tensor in _tensors(module))


def builds_on_meta() -> bool:
    """Whether parameters that are made now are on `meta`.

    They are inside `torch.device("meta")`, in which transformers loads models, and inside accelerate's
    `init_empty_weights`, in which diffusers does and which leaves buffers where they are.
    """
    probe = nn.Module()
    probe.register_parameter("weight", nn.Parameter(torch.empty(0)))
    return is_on_meta(probe)


def _tensors(module: nn.Module, recurse: bool = True) -> Iterable[Tensor]:
    return itertools.chain(module.parameters(recurse), module.buffers(recurse))
