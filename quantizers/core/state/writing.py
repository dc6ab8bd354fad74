"""Setting a parameter or buffer where the forward reads it, also where something stands in between."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quantizers.core.state.moving import move


@torch.no_grad()
def write(module: nn.Module, name: str, value: Tensor) -> None:
    """Give the parameter or buffer `name` of a module a value of its shape, in place.

    One that is parametrized (`torch.nn.utils.parametrize`) is set through the inverse of its parametrization.

    Raises: ValueError where the forward would not read what is written: a parametrization without an inverse, or
        whose inverse gives another value, and a tensor that pruning or the older weight norm computes anew.
    """
    if name in module._parameters or name in module._buffers:
        move(getattr(module, name), value)
        return
    kind = type(module).__name__
    if not parametrize.is_parametrized(module, name):
        raise ValueError(
            f"{name} of this {kind} is computed from other parameters, as by pruning, and a value written into it "
            "would be lost in the next forward; make it a plain parameter first, as by torch.nn.utils.prune.remove"
        )
    before = getattr(module, name).clone()
    try:
        setattr(module, name, value.to(before))
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{name} of this {kind} has a parametrization without a right_inverse, through which it could be set; "
            "remove it first with torch.nn.utils.parametrize.remove_parametrizations"
        ) from error
    if not _equal_to_rounding(getattr(module, name), value.to(before)):
        setattr(module, name, before)
        raise ValueError(
            f"{name} of this {kind} has a parametrization that does not take the value as it is; remove it first "
            "with torch.nn.utils.parametrize.remove_parametrizations"
        )


@torch.no_grad()
def write_rows(module: nn.Module, name: str, places: Tensor, rows: Tensor) -> None:
    """`write` for the rows `places` [n] alone; the others are copied only where something stands in between."""
    if name in module._parameters or name in module._buffers:
        getattr(module, name)[places] = rows
    else:
        write(module, name, getattr(module, name).index_copy(0, places, rows))


def _equal_to_rounding(a: Tensor, b: Tensor) -> bool:
    """Up to some roundings of the way through an inverse and back, relative to the largest value."""
    return bool((a - b).abs().max() <= 2**10 * torch.finfo(b.dtype).eps * b.abs().max()) if b.numel() else True
