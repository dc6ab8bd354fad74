"""FSQ's levels: equation (11) of kernels/README.md, and the mixed radix of its index."""

import torch
from torch import Tensor

LEVEL_MARGIN = 1e-3  # relative distance that the bound reaches past the outermost level: the paper's ε


def bound_levels(z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """Return FSQ's bounded vector before rounding, equation (11): [..., d] with levels int64 [d] → [..., d].

    The units are such that code values are multiples of 1 / ⌊L/2⌋. Differentiable in z.
    """
    half_range, offset, shift = bound_constants(levels, z.dtype)
    return ((slope * z + shift).tanh() * half_range - offset) / (levels // 2)


def clamp_levels(z: Tensor, levels: Tensor) -> Tensor:
    """Clamp z [..., d] between the lowest and the highest level; differentiable in z, with slope 1 between
    them."""
    half = (levels // 2).to(z.dtype)
    return z.clamp(min=-torch.ones_like(half), max=(levels - 1).to(z.dtype) / half - 1)


def bound_constants(levels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return h', o and the shift of equation (11), [d] each."""
    steps = (levels - 1).to(dtype) / 2
    half_range = steps + (steps * LEVEL_MARGIN).clamp(max=0.25)
    offset = (levels % 2 == 0).to(dtype) / 2
    return half_range, offset, (offset / half_range).where(levels > 2, 0.0).atanh()


@torch.no_grad()
def round_levels(z: Tensor, levels: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Return the nearest code of the bounded z [..., d], and its index [...] = Σ digit_i Π_{j<i} L_j (int64)."""
    return round_bounded(bound_levels(z, levels, slope), levels)


def round_bounded(bounded: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of a vector [..., d] in the units of the codes, and its index [...]."""
    half = levels // 2
    digits = (bounded * half).round().to(torch.int64) + half
    # Near 2²⁴ levels, the rounding of the bound reaches past the outermost level.
    digits = digits.clamp(min=0).minimum(levels - 1)
    return level_values(digits, levels, bounded.dtype), (digits * digit_weights(levels)).sum(-1)


def round_levels_backward(gradient: Tensor, z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """Return the gradient of z [..., d] from its code's gradient: straight-through, times the derivative of
    (11)."""
    half_range, _, shift = bound_constants(levels, z.dtype)
    t = (slope * z + shift).tanh()
    return gradient * slope * (1 - t) * (1 + t) * half_range / (levels // 2)


def level_values(digits: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return code values in [−1, 1] of digits 0 … L−1, [..., d]: (digit − ⌊L/2⌋) / ⌊L/2⌋."""
    half = levels // 2
    return (digits - half).to(dtype) / half.to(dtype)


def digit_weights(levels: Tensor) -> Tensor:
    """Return Π_{j<i} L_j for each channel i, int64 [d]. The product of all levels may be 2⁶³ and is not
    computed."""
    channels = torch.arange(levels.shape[0], device=levels.device)
    before = channels < channels[:, None]
    return levels.where(before, 1).prod(1)  # not cumprod, which ONNX lacks


def index_digits(indices: Tensor, levels: Tensor) -> Tensor:
    """Return the digits [..., d] of indices [...] in the mixed radix of the levels."""
    return indices[..., None] // digit_weights(levels) % levels
