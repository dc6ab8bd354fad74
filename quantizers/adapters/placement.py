"""On which device, and in which dtype, a quantizer takes the place of another; what it does where values are
missing.

The `meta` device holds shapes and no values. Libraries build models on it and fill them from a checkpoint;
afterwards a model may still hold its own quantizer there, whose weights the checkpoint does not have.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter


def home_of(*modules: nn.Module) -> torch.device:
    """Where the values are of the first module that has any: `meta` if all tensors are there, the CPU for no
    tensor."""
    tensors = list(itertools.chain.from_iterable(map(_tensors, modules)))
    first = next((tensor for tensor in tensors if not tensor.is_meta), next(iter(tensors), None))
    return torch.device("cpu") if first is None else first.device


def dtype_of(module: nn.Module) -> torch.dtype:
    """What a module was cast to; float32 for one without tensors."""
    if isinstance(module, Adapter):
        return module.dtype
    return next((tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()), torch.float32)


def moved(adapter: Adapter, home: torch.device, dtype: torch.dtype, *, given: bool) -> Adapter:
    """An adapter where the model is.

    What was built on `meta`, as within `from_pretrained` of transformers, has no values to move and stays there.
    To `meta`, where values are lost, goes only what was built from a name, and not where a library builds
    parameters there and leaves buffers their values; a quantizer that is `given` may be trained.
    """
    adapter = adapter.to(dtype)
    if home.type == "meta" and (given or builds_on_meta()):
        return adapter
    return adapter._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(home))


def with_values(module: nn.Module, home: torch.device) -> nn.Module:
    """`module` on the device `home`; what is on `meta` gets first values, by `reset_parameters` of the parts.

    Raises: ValueError for a part on `meta` without that method.
    """
    if home.type == "meta":
        return module.to(home)
    for name, part in module.named_modules():
        if not any(tensor.is_meta for tensor in _tensors(part, recurse=False)):
            continue
        reset = getattr(part, "reset_parameters", None)
        if reset is None:
            raise ValueError(
                f"{name or 'the module'} of {type(module).__name__}, {type(part).__name__}, is on meta, without "
                "values, and has no method reset_parameters that would draw them: build the model anew instead"
            )
        part.to_empty(device=home, recurse=False)
        reset()
    return module.to(home)


def lacks_values(module: nn.Module) -> bool:
    """Whether a tensor of a module is on `meta`."""
    return any(tensor.is_meta for tensor in _tensors(module))


def builds_on_meta() -> bool:
    """Whether parameters that are made now are on `meta`: within `torch.device("meta")`, which transformers
    loads in, or accelerate's `init_empty_weights`, which diffusers loads in and which leaves buffers where they
    are."""
    probe = nn.Module()
    probe.register_parameter("weight", nn.Parameter(torch.empty(0)))
    return lacks_values(probe)


def _tensors(module: nn.Module, recurse: bool = True) -> Iterable[Tensor]:
    return itertools.chain(module.parameters(recurse), module.buffers(recurse))
