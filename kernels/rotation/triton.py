"""The backward of the rotation trick with one read of its inputs: (6) to (10) of kernels/rotation/README.md."""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # elements of each input in the registers of one program with four warps, in float64
LARGEST_ROW = 2048  # most channels of a row in registers; a program loops over longer rows
LARGEST_RATIO = tl.constexpr(100.0)  # as in the reference: 1/100 ≤ λ ≤ 100, equation (9)
OPPOSITE = tl.constexpr(2.0**-26.5)  # as in the reference: below it the reflection (10)


def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ Rᵀ g, the backward of the rotation trick, by equations (6) to (10), in float64 like the reference.

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
    if WHOLE:
        offsets, mask = _place(rows, 0, n, d, BLOCK_D)
        g, x, q = (
            _load(gradient_ptr, offsets, mask),
            _load(x_ptr, offsets, mask),
            _load(quantized_ptr, offsets, mask),
        )
        x_scale, q_scale, ratio = _scales(_sum(x * x), _sum(q * q))
        x_unit, q_unit = x * x_scale, q * q_scale
        middle = x_unit + q_unit
        mm, mg, qg = _sum(middle * middle), _sum(middle * g), _sum(q_unit * g)
        _store(result_ptr, offsets, mask, _rotate(g, x_unit, middle, mm, mg, qg, ratio))
    else:
        xx, qq = tl.zeros((BLOCK_N, 1), tl.float64), tl.zeros((BLOCK_N, 1), tl.float64)
        for start in range(0, d, BLOCK_D):
            offsets, mask = _place(rows, start, n, d, BLOCK_D)
            x, q = _load(x_ptr, offsets, mask), _load(quantized_ptr, offsets, mask)
            xx += _sum(x * x)
            qq += _sum(q * q)
        x_scale, q_scale, ratio = _scales(xx, qq)
        mm, mg, qg = tl.zeros_like(xx), tl.zeros_like(xx), tl.zeros_like(xx)
        for start in range(0, d, BLOCK_D):
            offsets, mask = _place(rows, start, n, d, BLOCK_D)
            g, q_unit = _load(gradient_ptr, offsets, mask), _load(quantized_ptr, offsets, mask) * q_scale
            middle = _load(x_ptr, offsets, mask) * x_scale + q_unit
            mm += _sum(middle * middle)
            mg += _sum(middle * g)
            qg += _sum(q_unit * g)
        for start in range(0, d, BLOCK_D):
            offsets, mask = _place(rows, start, n, d, BLOCK_D)
            g, x_unit = _load(gradient_ptr, offsets, mask), _load(x_ptr, offsets, mask) * x_scale
            middle = x_unit + _load(quantized_ptr, offsets, mask) * q_scale
            _store(result_ptr, offsets, mask, _rotate(g, x_unit, middle, mm, mg, qg, ratio))


@triton.jit
def _scales(xx, qq):
    """1/‖x‖, 1/‖q‖ and λ from the squared norms; λ = 0 without a direction to rotate."""
    rotates = (xx > 0) & (qq > 0)
    x_norm, q_norm = tl.sqrt(tl.where(rotates, xx, 1.0)), tl.sqrt(tl.where(rotates, qq, 1.0))
    least = 1.0 / tl.full(xx.shape, LARGEST_RATIO, tl.float64)  # a literal 1/100 would be float32
    ratio = tl.minimum(tl.maximum(q_norm / x_norm, least), LARGEST_RATIO)
    return 1.0 / x_norm, 1.0 / q_norm, tl.where(rotates, ratio, 0.0)


@triton.jit
def _rotate(g, x_unit, middle, mm, mg, qg, ratio):
    """λ(g − 2w(w·g) + 2x̂(q̂·g)), with middle = x̂ + q̂, mm = ‖middle‖², mg = middle·g and qg = q̂·g; g if λ = 0."""
    # ‖middle‖² is a sum of squares, not 2 + 2x̂·q̂: that would cancel where x and q are nearly opposite.
    opposite = tl.sqrt(mm) < OPPOSITE
    along = tl.where(opposite, 0.0, mg / tl.where(opposite, 1.0, mm))
    return tl.where(ratio > 0, ratio * (g - 2.0 * middle * along + 2.0 * x_unit * qg), g)


@triton.jit
def _place(rows, start, n, d, BLOCK_D: tl.constexpr):
    channels = start + tl.arange(0, BLOCK_D)
    return rows[:, None] * d + channels[None, :], (rows < n)[:, None] & (channels < d)[None, :]


@triton.jit
def _load(pointer, offsets, mask):
    value = tl.load(pointer + offsets, mask=mask, other=0.0)
    if value.dtype != tl.float64:
        value = value.to(tl.float32).to(tl.float64)
    return value


@triton.jit
def _store(pointer, offsets, mask, value):
    if pointer.dtype.element_ty != tl.float64:
        value = value.to(tl.float32)  # torch also converts float64 to 16 bits through float32
    tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _sum(values):
    return tl.sum(values, 1)[:, None]
