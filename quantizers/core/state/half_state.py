"""State that a wrapper holds in half precision: computed with in float32 all the same, and warned of.

A cast of a module leaves a quantizer's state in float32. FSDP with a policy of mixed precision, DeepSpeed with
bf16 and the like put other tensors in its place, for the time of a forward or from step to step.
"""

import warnings
from collections.abc import Callable, Iterator

from torch import Tensor, nn

Half = tuple[nn.Module, str, Tensor]  # whose attribute it is, and by which name


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor has a floating dtype of fewer than 32 bits."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def widened(tensor: Tensor) -> Tensor:
    """A tensor in half precision as float32; any other as it is."""
    return tensor.float() if is_half(tensor) else tensor


def call_widened(module: nn.Module, x: Tensor) -> Tensor:
    """What a module gives for x, computed with its weights in float32 where they are in half precision."""
    forward: Callable[[Tensor], Tensor] = module
    halves = list(_halves(module))
    if not halves:
        return forward(x)
    # An attribute of the instance hides a parameter of its name, and what FSDP has put in its place is one itself.
    hidden = [(part.__dict__, name, part.__dict__.get(name)) for part, name, _ in halves]
    try:
        for part, name, tensor in halves:
            part.__dict__[name] = tensor.float()
        return forward(x)
    finally:
        for attributes, name, before in hidden:
            if before is None:
                del attributes[name]
            else:
                attributes[name] = before


def warn_of_half_state(quantizer: nn.Module, thoroughly: bool) -> bool:
    """Warn where a quantizer's state is in half precision. Returns: whether it is.

    Args: thoroughly: find it too where a wrapper has made plain attributes of it, which takes ten times as long.
    """
    found = next(_halves(quantizer), None) if thoroughly else _first_half(quantizer)
    if found is None:
        return False
    part, name, tensor = found
    owner = "" if part is quantizer else f" of a {type(part).__name__}"
    # Explicit: a filter shows the same message once for a line of code, and this is one for each quantizer.
    warnings.warn_explicit(
        f"{type(quantizer).__name__}({quantizer.extra_repr()}) has {name}{owner} in {tensor.dtype} in its "
        "forward, expected torch.float32: its codes are rounded, as something around it casts them in each step. "
        "Under FSDP with a policy of mixed precision shard the quantizer first, by itself and without the policy: "
        "fully_shard(model.quantizer). Under DeepSpeed enable torch_autocast in the place of bf16 or fp16. A cast "
        "of your own, parameter by parameter, is undone by quantizer.float().",
        RuntimeWarning,
        __file__,
        0,
        module=__name__,
    )
    return True


def _first_half(module: nn.Module) -> Half | None:
    """A parameter or buffer in half precision. Each forward looks for one, and has no time for more."""
    for held in (module._parameters, module._buffers):
        for name, tensor in held.items():
            if tensor is not None and is_half(tensor):
                return module, name, tensor
    parts = (child for child in module._modules.values() if child is not None)
    return next((found for part in parts if (found := _first_half(part))), None)


def _halves(module: nn.Module) -> Iterator[Half]:
    """Each tensor in half precision that an attribute of a module or of those in it gives."""
    for part in module.modules():
        for name, tensor in {**part._parameters, **part._buffers, **part.__dict__}.items():
            if isinstance(tensor, Tensor) and is_half(tensor):
                yield part, name, tensor
