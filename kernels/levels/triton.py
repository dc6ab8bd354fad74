"""FSQ's levels, with one kernel each for forward and backward: equation (1) of kernels/levels/README.md, and the
mixed radix of its index.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_LEVEL_MARGIN, LEVEL_MARGIN
from quantizers.kernels.common.triton.division import divide
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed

TILE = 1024  # elements of z per program
_LEVEL_MARGIN = tl.constexpr(LEVEL_MARGIN)
_LARGEST_LEVEL_MARGIN = tl.constexpr(LARGEST_LEVEL_MARGIN)


@replayed()
def round_levels(z: Tensor, levels: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Return the nearest code of the bounded z, and its index, by equation (1).

    Args:
        z: [..., d], float32 or float64, on the GPU.
        levels: L, int64 [d].
        slope: a.

    Returns: the code's values in [−1, 1], [..., d] in z's dtype, and Σ digit_i Π_{j<i} L_j, [...] int64. A digit
        may differ from the reference's if the bounded z is within a rounding error of the middle between two
        levels.

    Raises: TypeError for another dtype.
    """
    _check_dtype(z)
    d, z = z.shape[-1], z.contiguous()
    codes, index = torch.empty_like(z), torch.empty(z.shape[:-1], dtype=torch.int64, device=z.device)
    block_n, block_d = _tile(d)
    if index.numel():
        grid = (triton.cdiv(index.numel(), block_n),)
        _round_kernel[grid](
            z,
            levels.contiguous(),
            codes,
            index,
            index.numel(),
            d,
            slope,
            block_n,
            block_d,
            enable_fp_fusion=True,
        )
    return codes, index


@replayed()
def round_levels_backward(gradient: Tensor, z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """Return the gradient of z from its code's gradient: straight-through, times the derivative of (1).

    Args:
        gradient, z: [..., d], float32 or float64.
        levels: int64 [d].
        slope: a.

    Returns: [..., d] in z's dtype. It is also relatively accurate in the tails, where 1 − tanh² would cancel.

    Raises: TypeError for another dtype of z.
    """
    _check_dtype(z)
    d, z = z.shape[-1], z.contiguous()
    result = torch.empty_like(z)
    block_n, block_d = _tile(d)
    n = z.numel() // d
    if n:
        _slope_kernel[(triton.cdiv(n, block_n),)](
            gradient.contiguous(),
            z,
            levels.contiguous(),
            result,
            n,
            d,
            slope,
            block_n,
            block_d,
            enable_fp_fusion=True,
        )
    return result


def _check_dtype(z: Tensor) -> None:
    if z.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"z is {z.dtype}, expected float32 or float64")


def _tile(d: int) -> tuple[int, int]:
    """Return the rows and (padded) channels of one program."""
    block_d = triton.next_power_of_2(d)
    return max(1, TILE // block_d), block_d


@launched
@triton.jit(do_not_specialize=["n"])
def _round_kernel(
    z_ptr,
    levels_ptr,
    codes_ptr,
    index_ptr,
    n,
    d,
    SLOPE: tl.constexpr,  # not an argument: Triton passes a float argument as float32
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_D)
    offsets, mask = rows[:, None] * d + channels[None, :], (rows < n)[:, None] & (channels < d)[None, :]
    levels = tl.load(levels_ptr + channels, mask=channels < d, other=2)
    # The weight of a channel is the product of the earlier levels. The product of all, up to 2⁶³, is not needed.
    weights = tl.cumprod(tl.load(levels_ptr + channels - 1, mask=(channels > 0) & (channels < d), other=1), 0)
    half = levels // 2
    z = tl.load(z_ptr + offsets, mask=mask, other=0.0)
    half_range, offset, shift = _bound(levels, z.dtype)
    bounded = _tanh(SLOPE * z + shift) * half_range - offset
    digits = _round_to_even(tl.where(bounded == bounded, bounded, -half.to(z.dtype)[None, :])) + half[None, :]
    # Near 2²⁴ levels, the rounding of the bound reaches past the outermost level.
    digits = tl.minimum(tl.maximum(digits, 0), (levels - 1)[None, :])
    tl.store(
        codes_ptr + offsets, divide((digits - half[None, :]).to(z.dtype), half.to(z.dtype)[None, :]), mask=mask
    )
    index = tl.sum(tl.where(mask, digits * weights[None, :], 0), 1)
    tl.store(index_ptr + rows, index, mask=rows < n)


@launched
@triton.jit(do_not_specialize=["n"])
def _slope_kernel(
    gradient_ptr,
    z_ptr,
    levels_ptr,
    result_ptr,
    n,
    d,
    SLOPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_D)
    offsets, mask = rows[:, None] * d + channels[None, :], (rows < n)[:, None] & (channels < d)[None, :]
    levels = tl.load(levels_ptr + channels, mask=channels < d, other=2)
    z = tl.load(z_ptr + offsets, mask=mask, other=0.0)
    gradient = tl.load(gradient_ptr + offsets, mask=mask, other=0.0)
    half_range, _, shift = _bound(levels, z.dtype)
    fall = tl.exp(-2.0 * tl.abs(SLOPE * z + shift))
    derivative = 4.0 * fall / ((1.0 + fall) * (1.0 + fall))  # 1 − tanh², without its cancellation
    scale = half_range / (levels // 2)[None, :].to(z.dtype) * SLOPE
    tl.store(result_ptr + offsets, gradient.to(z.dtype) * derivative * scale, mask=mask)


@triton.jit
def _bound(levels, dtype: tl.constexpr):
    """h', o and the shift of equation (1), [1, d], computed in float64: the logarithm's argument is close to
    1."""
    steps = (levels - 1).to(tl.float64) * 0.5
    half_range = steps + tl.minimum(steps * _LEVEL_MARGIN, _LARGEST_LEVEL_MARGIN)
    offset = (1 - levels % 2).to(tl.float64) * 0.5
    artanh = 0.5 * tl.log((half_range + offset) / (half_range - offset))
    shift = tl.where(levels > 2, artanh, 0.0)
    return half_range.to(dtype)[None, :], offset.to(dtype)[None, :], shift.to(dtype)[None, :]


@triton.jit
def _tanh(a):
    """tanh with a relative error of a few roundings, in float32 and float64; NaN stays NaN.

    Below ½, its continued fraction truncated at the seventh term (the next term is relative 2⁻⁵²); above, the
    exponential.
    """
    small = tl.abs(a) < 0.5
    near = tl.where(small, a, 0.0)
    square = near * near
    above = near * (135135.0 + square * (17325.0 + square * (378.0 + square)))
    below = 135135.0 + square * (62370.0 + square * (3150.0 + square * 28.0))
    fall = tl.exp(-2.0 * tl.abs(a))
    far = (1.0 - fall) / (1.0 + fall)
    return tl.where(small, above / below, tl.where(a < 0, -far, far))


@triton.jit
def _round_to_even(a):
    """The nearest int64, with halves rounded to even, like torch.round; every difference below is exact."""
    floor = tl.floor(a)
    whole, rest = floor.to(tl.int64), a - floor
    return whole + ((rest > 0.5) | ((rest == 0.5) & (whole % 2 != 0))).to(tl.int64)
