"""FSQ's bound and rounding, and their gradient: equation (1) of kernels/levels/README.md."""

import torch
from torch import Tensor

from quantizers.kernels.levels.bound import bound_constants, bound_levels
from quantizers.kernels.levels.digits import round_bounded


@torch.no_grad()
def round_levels(z: Tensor, levels: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Return the nearest code of the bounded z [..., d], and its index [...] = Σ digit_i Π_{j<i} L_j (int64)."""
    return round_bounded(bound_levels(z, levels, slope), levels)


def round_levels_backward(gradient: Tensor, z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """Return the gradient of z [..., d] from its code's gradient: straight-through, times the derivative of
    (1)."""
    half_range, _, shift = bound_constants(levels, z.dtype)
    t = (slope * z + shift).tanh()
    return gradient * slope * (1 - t) * (1 + t) * half_range / (levels // 2)
