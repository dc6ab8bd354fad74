"""The backward of the rotation trick with one read of its inputs: (1) to (5) of kernels/rotation/README.md."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_RATIO, OPPOSITE
from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed

TILE = 1024  # elements of each input in the registers of one program with four warps, in float64
LARGEST_ROW = 2048  # most channels of a row in registers; a program loops over longer rows
_LARGEST_RATIO = tl.constexpr(LARGEST_RATIO)
_OPPOSITE = tl.constexpr(OPPOSITE)


@replayed()
def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ Rᵀ g, the backward of the rotation trick, by equations (1) to (5), in float64 like the reference.

    Args: [..., D] each, any floating dtypes, on the GPU; `x` is the encoder's vector, `quantized` its code.

    Returns: [..., D] in the gradient's dtype; g itself if x or its code is zero.
    """
    d, result = x.shape[-1], torch.empty_like(gradient, memory_format=torch.contiguous_format)
    n = x.numel() // max(d, 1)
    block_n, block_d = _tile(d)
    if n:
        _rotate_kernel[(triton.cdiv(n, block_n),)](
            gradient.contiguous(),
            x.contiguous(),
            quantized.contiguous(),
            result,
            n,
            d,
            block_n,
            block_d,
            d <= block_d,
            enable_fp_fusion=True,
        )
    return result


def _tile(d: int) -> tuple[int, int]:
    """Return the rows and channels that one program processes at a time."""
    block_d = min(triton.next_power_of_2(d), LARGEST_ROW)
    return max(1, TILE // block_d), block_d


@launched
@triton.jit(do_not_specialize=["n"])
def _rotate_kernel(
    gradient_ptr,
    x_ptr,
    quantized_ptr,
    result_ptr,
    n,
    d,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WHOLE: tl.constexpr,  # a row fits in one tile and is read once
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    gradient_ptr += rows * d
    x_ptr += rows * d
    quantized_ptr += rows * d
    result_ptr += rows * d
    if WHOLE:
        g = load_tile(gradient_ptr, inside, 0, d, 1, BLOCK_D)
        x, q = load_tile(x_ptr, inside, 0, d, 1, BLOCK_D), load_tile(quantized_ptr, inside, 0, d, 1, BLOCK_D)
        x_scale, q_scale, ratio = _scales(_sum(x * x), _sum(q * q))
        x_unit, q_unit = x * x_scale, q * q_scale
        middle = x_unit + q_unit
        mm, mg, qg = _sum(middle * middle), _sum(middle * g), _sum(q_unit * g)
        store_tile(result_ptr, inside, 0, d, 1, _rotate(g, x_unit, middle, mm, mg, qg, ratio), BLOCK_D)
    else:
        xx, qq = tl.zeros((BLOCK_N, 1), tl.float64), tl.zeros((BLOCK_N, 1), tl.float64)
        for start in range(0, d, BLOCK_D):
            x = load_tile(x_ptr, inside, start, d, 1, BLOCK_D)
            q = load_tile(quantized_ptr, inside, start, d, 1, BLOCK_D)
            xx += _sum(x * x)
            qq += _sum(q * q)
        x_scale, q_scale, ratio = _scales(xx, qq)
        mm, mg, qg = tl.zeros_like(xx), tl.zeros_like(xx), tl.zeros_like(xx)
        for start in range(0, d, BLOCK_D):
            g = load_tile(gradient_ptr, inside, start, d, 1, BLOCK_D)
            q_unit = load_tile(quantized_ptr, inside, start, d, 1, BLOCK_D) * q_scale
            middle = load_tile(x_ptr, inside, start, d, 1, BLOCK_D) * x_scale + q_unit
            mm += _sum(middle * middle)
            mg += _sum(middle * g)
            qg += _sum(q_unit * g)
        for start in range(0, d, BLOCK_D):
            g = load_tile(gradient_ptr, inside, start, d, 1, BLOCK_D)
            x_unit = load_tile(x_ptr, inside, start, d, 1, BLOCK_D) * x_scale
            middle = x_unit + load_tile(quantized_ptr, inside, start, d, 1, BLOCK_D) * q_scale
            rotated = _rotate(g, x_unit, middle, mm, mg, qg, ratio)
            store_tile(result_ptr, inside, start, d, 1, rotated, BLOCK_D)


@triton.jit
def _scales(xx, qq):
    """1/‖x‖, 1/‖q‖ and λ from the squared norms; λ = 0 without a direction to rotate."""
    rotates = (xx > 0) & (qq > 0)
    x_norm, q_norm = tl.sqrt(tl.where(rotates, xx, 1.0)), tl.sqrt(tl.where(rotates, qq, 1.0))
    least = 1.0 / tl.full(xx.shape, _LARGEST_RATIO, tl.float64)  # a literal 1/100 would be float32
    ratio = tl.minimum(tl.maximum(q_norm / x_norm, least), _LARGEST_RATIO)
    return 1.0 / x_norm, 1.0 / q_norm, tl.where(rotates, ratio, 0.0)


@triton.jit
def _rotate(g, x_unit, middle, mm, mg, qg, ratio):
    """λ(g − 2w(w·g) + 2x̂(q̂·g)), with middle = x̂ + q̂, mm = ‖middle‖², mg = middle·g and qg = q̂·g; g if λ = 0."""
    # ‖middle‖² is a sum of squares, not 2 + 2x̂·q̂: that would cancel where x and q are nearly opposite.
    opposite = tl.sqrt(mm) < _OPPOSITE
    along = tl.where(opposite, 0.0, mg / tl.where(opposite, 1.0, mm))
    return tl.where(ratio > 0, ratio * (g - 2.0 * middle * along + 2.0 * x_unit * qg), g)


@triton.jit
def _sum(values):
    return tl.sum(values, 1)[:, None]
