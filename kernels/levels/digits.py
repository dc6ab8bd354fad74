"""Codes on a grid of levels, and the mixed radix of their indices."""

import torch
from torch import Tensor


def round_bounded(bounded: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of a vector [..., d] in the units of the codes, and its index [...]."""
    half = levels // 2
    digits = (bounded * half).round().to(torch.int64) + half
    # Near 2²⁴ levels, the rounding of the bound reaches past the outermost level.
    digits = digits.clamp(min=0).minimum(levels - 1)
    return level_values(digits, levels, bounded.dtype), (digits * digit_weights(levels)).sum(-1)


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
