"""Writing a parameter or buffer so that the forward uses the value, even if it is parametrized."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quantizers.core.state.moving import move


@torch.no_grad()
def write(module: nn.Module, name: str, value: Tensor) -> None:
    """Write `value` into the parameter or buffer `name` of a module, in place.

    A parametrized tensor (`torch.nn.utils.parametrize`) is set through the inverse of its parametrization.

    Args:
        module: the module that has the tensor.
        name: the name of the attribute.
        value: a tensor of its shape.

    Raises: ValueError if the forward would not use the written value: for a parametrization without an inverse or
        with one that does not restore the value, and a tensor that pruning or the older weight norm recomputes.
    """
    if name in module._parameters or name in module._buffers:
        move(getattr(module, name), value)
        return
    kind = type(module).__name__
    if not parametrize.is_parametrized(module, name):
        raise ValueError(
            f"{name} of this {kind} is computed from other parameters, for example by pruning, and the next "
            "forward would overwrite it; make it a plain parameter first, for example with "
            "torch.nn.utils.prune.remove"
        )
    before = getattr(module, name).clone()
    try:
        setattr(module, name, value.to(before))
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{name} of this {kind} cannot be set, since its parametrization has no right_inverse; remove the "
            "parametrization first with torch.nn.utils.parametrize.remove_parametrizations"
        ) from error
    if not _equal_to_rounding(getattr(module, name), value.to(before)):
        setattr(module, name, before)
        raise ValueError(
            f"{name} of this {kind} cannot be set to this value, since its parametrization changes it; remove the "
            "parametrization first with torch.nn.utils.parametrize.remove_parametrizations"
        )


@torch.no_grad()
def write_rows(module: nn.Module, name: str, positions: Tensor, rows: Tensor) -> None:
    """Write `rows` [n, ...] into the rows `positions` [n] of a parameter or buffer; see `write`.

    The other rows are copied only if the tensor is parametrized.
    """
    if name in module._parameters or name in module._buffers:
        getattr(module, name)[positions] = rows
    else:
        write(module, name, getattr(module, name).index_copy(0, positions, rows))


def _equal_to_rounding(a: Tensor, b: Tensor) -> bool:
    """Whether a and b are equal up to some roundings by an inverse and back, relative to the largest value."""
    return bool((a - b).abs().max() <= 2**10 * torch.finfo(b.dtype).eps * b.abs().max()) if b.numel() else True
