"""FSQ's bounds of a vector, before it is rounded: equations (1) and (3) of kernels/levels/README.md."""

import torch
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_LEVEL_MARGIN, LEVEL_MARGIN


def bound_levels(z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """Return FSQ's bounded vector before rounding, equation (1): [..., d] with levels int64 [d] → [..., d].

    The units are such that code values are multiples of 1 / ⌊L/2⌋. Differentiable in z.
    """
    half_range, offset, shift = bound_constants(levels, z.dtype)
    return ((slope * z + shift).tanh() * half_range - offset) / (levels // 2)


def narrow_levels(z: Tensor, levels: Tensor) -> Tensor:
    """Return the bounded vector of equation (3), before rounding: [..., d] with levels int64 [d] → [..., d].

    Units and gradient as those of `bound_levels`.
    """
    half_range = (levels - 1).to(z.dtype) / 2 * (1 - LEVEL_MARGIN)
    offset = (levels % 2 == 0).to(z.dtype) / 2
    shift = (offset / half_range).tan()
    return ((z + shift).tanh() * half_range - offset) / (levels // 2)


def clamp_levels(z: Tensor, levels: Tensor) -> Tensor:
    """Clamp z [..., d] between the lowest and the highest level; differentiable in z, with slope 1 between
    them."""
    half = (levels // 2).to(z.dtype)
    return z.clamp(min=-torch.ones_like(half), max=(levels - 1).to(z.dtype) / half - 1)


def bound_constants(levels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return h', o and the shift of equation (1), [d] each."""
    steps = (levels - 1).to(dtype) / 2
    half_range = steps + (steps * LEVEL_MARGIN).clamp(max=LARGEST_LEVEL_MARGIN)
    offset = (levels % 2 == 0).to(dtype) / 2
    return half_range, offset, (offset / half_range).where(levels > 2, 0.0).atanh()
