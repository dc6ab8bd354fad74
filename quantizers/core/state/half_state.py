"""State that a wrapper has cast to half precision: quantizers still compute in float32, and warn.

Casting a module leaves the state of a quantizer in float32. But FSDP with a mixed precision policy, DeepSpeed with
bf16 and similar wrappers replace its tensors, for the duration of a forward or from step to step.
"""

import warnings
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from quantizers.kernels.common.compat import plain_attributes

HalfTensor = tuple[nn.Module, str, Tensor]  # the module and the name of its attribute, and the value


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor has a floating dtype of fewer than 32 bits."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def widened(tensor: Tensor) -> Tensor:
    """Returns a half-precision tensor as float32, and any other tensor unchanged."""
    return tensor.float() if is_half(tensor) else tensor


def call_widened(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module on x with its half-precision weights, if it has any, temporarily in float32."""
    forward: Callable[[Tensor], Tensor] = module
    halves = list(_halves(module))
    if not halves:
        return forward(x)
    # An attribute of the instance hides the parameter of that name. FSDP itself may have set such an attribute.
    hidden = [(owner.__dict__, name, owner.__dict__.get(name)) for owner, name, _ in halves]
    try:
        for owner, name, tensor in halves:
            owner.__dict__[name] = tensor.float()
        return forward(x)
    finally:
        for attributes, name, before in hidden:
            if before is None:
                del attributes[name]
            else:
                attributes[name] = before


def warn_of_half_state(quantizer: nn.Module, thoroughly: bool) -> bool:
    """Warn if the state of a quantizer is in half precision.

    Args:
        quantizer: the quantizer, whose state may have been replaced by a wrapper.
        thoroughly: also look at plain attributes, to which some wrappers move the state. Takes ten times as long.

    Returns: whether it is in half precision.
    """
    found = next(_halves(quantizer), None) if thoroughly else _first_half(quantizer)
    if found is None:
        return False
    module, name, tensor = found
    owner = "" if module is quantizer else f" of a {type(module).__name__}"
    # Python shows each message once for a line of code. An explicit warning is shown once for each quantizer.
    warnings.warn_explicit(
        f"{type(quantizer).__name__}({quantizer.extra_repr()}) has {name}{owner} in {tensor.dtype} in its "
        "forward, expected torch.float32: its codes are rounded, because something around it casts them in each "
        "step. Under FSDP with a mixed precision policy, shard the quantizer first, separately and without the "
        "policy: fully_shard(model.quantizer). Under DeepSpeed, enable torch_autocast instead of bf16 or fp16. If "
        "your own code cast the parameters one by one, call quantizer.float().",
        RuntimeWarning,
        __file__,
        0,
        module=__name__,
    )
    return True


def _first_half(module: nn.Module) -> HalfTensor | None:
    """The first half-precision parameter or buffer. It is fast, because every forward calls it."""
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and is_half(tensor):
                return module, name, tensor
    children = (child for child in module._modules.values() if child is not None)
    return next((found for child in children if (found := _first_half(child))), None)


def _halves(module: nn.Module) -> Iterator[HalfTensor]:
    """Every half-precision tensor that is an attribute of the module or of a module inside it."""
    for owner in module.modules():
        for name, tensor in {**owner._parameters, **owner._buffers, **plain_attributes(owner)}.items():
            if isinstance(tensor, Tensor) and is_half(tensor):
                yield owner, name, tensor
