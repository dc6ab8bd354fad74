"""FSQ's bound, rounding and index in one pass: a registered operation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation, chosen_implementation, resume_implementation
from quantizers.kernels.common.modes import is_differentiated_again, is_transformed, leaves_library, with_value
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import integers
from quantizers.kernels.levels import compiled, reference
from quantizers.kernels.levels.bound import bound_levels


def _import_round_levels() -> Callable[..., tuple[Tensor, Tensor]]:
    from quantizers.kernels.levels.triton import round_levels

    return round_levels


def _import_round_levels_backward() -> Callable[..., Tensor]:
    from quantizers.kernels.levels.triton import round_levels_backward

    return round_levels_backward


ROUND_LEVELS = Operation(
    name="round_levels",
    reference=reference.round_levels,
    compiled=compiled.round_levels,
    import_triton=_import_round_levels,
    without_float64="reference",
)
ROUND_LEVELS_BACKWARD = Operation(
    name="round_levels_backward",
    reference=reference.round_levels_backward,
    compiled=compiled.round_levels_backward,
    import_triton=_import_round_levels_backward,
    without_float64="reference",
)


def round_levels(z: Tensor, levels: Sequence[int], slope: float = 1.0) -> tuple[Tensor, Tensor]:
    """The nearest code of each vector after FSQ's bound (Mentzer et al. 2023), and its index, by equation (1).

    Args:
        z: [..., d], float32 or float64.
        levels: L_i ≥ 2 for each of the d channels, with a product of at most 2⁶³.
        slope: slope of the bound, 1 for tanh, 0.8 for iFSQ.

    Returns:
        codes: [..., d] in z's dtype, multiples of 1/⌊L/2⌋ in [−1, 1]. The gradient of z is the codes' gradient
            times the bound's derivative; the rounding is passed straight through.
        indices: [...] int64, Σ digit_i · Π_{j<i} L_j.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    if z.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"z has dtype {z.dtype}, expected torch.float32 or torch.float64")
    if z.dim() < 1 or z.shape[-1] != len(levels):
        raise ValueError(f"z has shape {tuple(z.shape)}, expected {len(levels)} channels, one per entry of levels")
    if not (leaves_library() or is_transformed()):
        codes, indices = _round_levels(z, levels, slope)
        return codes, indices
    if leaves_library():
        codes, indices = reference.round_levels(z.detach(), integers(levels, z.device), slope)
    else:
        codes, indices = _round_levels(z.detach(), levels, slope)
    return with_value(bound_levels(z, integers(levels, z.device), slope), codes), indices


@registered("round_levels")
def _round_levels(z: Tensor, levels: Sequence[int], slope: float) -> tuple[Tensor, Tensor]:
    return ROUND_LEVELS.run(z, integers(levels, z.device), slope)


@_round_levels.register_fake
def _(z: Tensor, levels: Sequence[int], slope: float) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), z.new_empty(z.shape[:-1], dtype=torch.int64)


def _save(ctx: Any, inputs: tuple[Tensor, Sequence[int], float], output: tuple[Tensor, Tensor]) -> None:
    z, ctx.levels, ctx.slope = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z)
    ctx.implementation = chosen_implementation()


def _backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None, None]:
    if is_differentiated_again():
        (z,) = ctx.saved_tensors
        levels = integers(ctx.levels, z.device)
        return reference.round_levels_backward(gradient, z, levels, ctx.slope), None, None
    with resume_implementation(ctx.implementation):
        return _round_levels_backward(gradient, *ctx.saved_tensors, ctx.levels, ctx.slope), None, None


_round_levels.register_autograd(_backward, setup_context=_save)
_round_levels.register_vmap(along(_round_levels, 0, 1, one_by_one(_round_levels)))


@registered("round_levels_backward")
def _round_levels_backward(gradient: Tensor, z: Tensor, levels: Sequence[int], slope: float) -> Tensor:
    return ROUND_LEVELS_BACKWARD.run(gradient, z, integers(levels, z.device), slope)


@_round_levels_backward.register_fake
def _(gradient: Tensor, z: Tensor, levels: Sequence[int], slope: float) -> Tensor:
    return z.new_empty(z.shape)
