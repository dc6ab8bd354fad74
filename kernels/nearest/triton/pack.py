"""Vectors in the layout of the search: centred, scaled, padded, and split in halves that are exact in a matrix
unit.

The centre c is the mean code of a head. The scale is a power of two near the largest |e − c|, so that nothing
overflows. Rows farther out than the codes each get another power of two, their `factor`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.precision import Mode

ROWS = 64  # per program
CHANNELS = 32  # per step


class Frame(NamedTuple):
    """The location of a head's codes, in float64."""

    centre: Tensor  # [H, D] the mean code
    spread: Tensor  # [H, D] the largest |e − c| of each channel


class Packed(NamedTuple):
    """Packed vectors or codes, with D padded to a multiple of the search's block_d and R to whole tiles."""

    high: Tensor  # [H, R, D] float32 of tf32's precision, or bfloat16 (off the GPU, float32 rounded to bfloat16)
    low: Tensor  # the remainder of the float32 value, in the same dtype; equals `high` if one half is enough
    half_squares: Tensor  # [H, R] float32 ½‖row‖²; +inf for padding and for rows that are not finite
    factor: Tensor  # [H, R] float32 power of two by which the row is scaled beyond the head's scale


def frame(codebook: Tensor) -> Frame:
    """Return centre and spread of the finite codes of each head of [H, K, D]."""
    heads, size, d = codebook.shape
    slices = triton.cdiv(size, ROWS)
    partial = [codebook.new_empty((heads, slices, d), dtype=torch.float64) for _ in range(3)]
    counts = codebook.new_empty((heads, slices), dtype=torch.int32)
    _summarize[(heads * slices,)](
        codebook, *codebook.stride(), *partial, counts, size, slices, d, ROWS=ROWS, CHANNELS=CHANNELS
    )
    result = Frame(*(codebook.new_empty((heads, d), dtype=torch.float64) for _ in range(2)))
    _combine[(heads * triton.cdiv(d, CHANNELS),)](
        *partial, counts, *result, slices, d, ROWS=ROWS, CHANNELS=CHANNELS
    )
    return result


def pack(vectors: Tensor, where: Frame, padded: int, width: int, mode: Mode, *, is_x: bool) -> Packed:
    """Return the rows of [H, R, D] in `where`, padded to [H, padded, width], in the precision of `mode`.

    Args:
        is_x: True for vectors, which may lie outside the head's scale and get their own factors. They are packed
            as −x, so that the product adds to the scores and no instruction changes its sign. False for codes.
    """
    heads, rows, d = vectors.shape
    # Triton's interpreter gets products of bfloat16 wrong; in float32 they are exact, as in a matrix unit.
    dtype = torch.bfloat16 if mode == "bf16" and vectors.is_cuda else torch.float32
    high = vectors.new_empty((heads, padded, width), dtype=dtype)
    low = torch.empty_like(high) if mode == "exact" else high
    half_squares = vectors.new_empty((heads, padded), dtype=torch.float32)
    factor = torch.empty_like(half_squares)
    _pack[(heads * triton.cdiv(padded, ROWS),)](
        vectors,
        *vectors.stride(),
        *where,
        high,
        low,
        half_squares,
        factor,
        rows,
        padded,
        d,
        width,
        X=is_x,
        MODE=mode,
        ROWS=ROWS,
        CHANNELS=CHANNELS,
        enable_fp_fusion=True,
    )
    return Packed(high, low, half_squares, factor)


@triton.jit
def load_tile(rows_ptr, mask, channel, d, stride_d, CHANNELS: tl.constexpr):
    """Float64 tile [R, CHANNELS] of channels from `channel` on; zero outside. `rows_ptr`: [R] pointers to rows."""
    channels = channel + tl.arange(0, CHANNELS)
    inside = mask[:, None] & (channels < d)[None, :]
    return tl.load(rows_ptr[:, None] + channels.to(tl.int64)[None, :] * stride_d, mask=inside, other=0).to(
        tl.float64
    )


@triton.jit
def finite_rows(rows_ptr, mask, d, stride_d, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """[R] bool: the row is in range and all its channels are finite."""
    broken = tl.zeros([ROWS], tl.int32)
    for channel in range(0, d, CHANNELS):
        tile = load_tile(rows_ptr, mask, channel, d, stride_d, CHANNELS)
        broken = tl.maximum(broken, tl.max(1 - (tl.abs(tile) < float("inf")).to(tl.int32), 1))
    return mask & (broken == 0)


@triton.jit(do_not_specialize=["stride_h", "stride_k", "size", "slices"])
def _summarize(
    codes_ptr,
    stride_h,
    stride_k,
    stride_d,
    sum_ptr,
    least_ptr,
    most_ptr,
    count_ptr,
    size,
    slices,
    d,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sum, smallest and largest of each channel over the finite codes of one slice, and their number."""
    part, head = tl.program_id(0) % slices, (tl.program_id(0) // slices).to(tl.int64)
    rows = part * ROWS + tl.arange(0, ROWS)
    rows_ptr = codes_ptr + head * stride_h + rows.to(tl.int64) * stride_k
    finite = finite_rows(rows_ptr, rows < size, d, stride_d, ROWS, CHANNELS)
    tl.store(count_ptr + head * slices + part, tl.sum(finite.to(tl.int32), 0))
    out = (head * slices + part) * d
    for channel in range(0, d, CHANNELS):
        tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
        channels = channel + tl.arange(0, CHANNELS)
        tl.store(sum_ptr + out + channels, tl.sum(tile, 0), mask=channels < d)
        least = tl.min(tl.where(finite[:, None], tile, float("inf")), 0)
        tl.store(least_ptr + out + channels, least, mask=channels < d)
        most = tl.max(tl.where(finite[:, None], tile, float("-inf")), 0)
        tl.store(most_ptr + out + channels, most, mask=channels < d)


@triton.jit(do_not_specialize=["slices"])
def _combine(
    sum_ptr,
    least_ptr,
    most_ptr,
    count_ptr,
    centre_ptr,
    spread_ptr,
    slices,
    d,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the summaries of all slices of a head, in the order of the slices."""
    blocks = tl.cdiv(d, CHANNELS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    channels = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float64)
    least = tl.full([CHANNELS], float("inf"), tl.float64)
    most = tl.full([CHANNELS], float("-inf"), tl.float64)
    count = tl.zeros([ROWS], tl.int32)
    for start in range(0, slices, ROWS):
        parts = start + tl.arange(0, ROWS)
        place = (head * slices + parts)[:, None] * d + channels[None, :]
        inside = (parts < slices)[:, None] & (channels < d)[None, :]
        total += tl.sum(tl.load(sum_ptr + place, mask=inside, other=0.0), 0)
        least = tl.minimum(least, tl.min(tl.load(least_ptr + place, mask=inside, other=float("inf")), 0))
        most = tl.maximum(most, tl.max(tl.load(most_ptr + place, mask=inside, other=float("-inf")), 0))
        count += tl.load(count_ptr + head * slices + parts, mask=parts < slices, other=0)
    codes = tl.sum(count, 0)
    centre = total / tl.maximum(codes, 1).to(tl.float64)
    spread = tl.where(codes > 0, tl.maximum(most - centre, centre - least), 0.0)
    tl.store(centre_ptr + head * d + channels, centre, mask=channels < d)
    tl.store(spread_ptr + head * d + channels, spread, mask=channels < d)


@triton.jit
def _inverse_power_of_two(value):
    """2⁻ᵏ with 2ᵏ ≤ value < 2ᵏ⁺¹, for float64 values of at least 2⁻²⁰⁰ (smaller ones are treated as 2⁻²⁰⁰)."""
    bits = tl.maximum(value, 6.223015277861142e-61).to(tl.int64, bitcast=True)
    return ((2046 - (bits >> 52)) << 52).to(tl.float64, bitcast=True)


@triton.jit
def round_tf32(value):
    """The nearest float32 with ten explicit mantissa bits, halves away from zero; for |value| ≤ 4."""
    bits = value.to(tl.int32, bitcast=True)
    return ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["stride_h", "stride_r", "rows", "padded"])
def _pack(
    vectors_ptr,
    stride_h,
    stride_r,
    stride_d,
    centre_ptr,
    spread_ptr,
    high_ptr,
    low_ptr,
    half_ptr,
    factor_ptr,
    rows,
    padded,
    d,
    width,
    X: tl.constexpr,
    MODE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(padded, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    rows_ptr = vectors_ptr + head * stride_h + row.to(tl.int64) * stride_r
    finite = finite_rows(rows_ptr, row < rows, d, stride_d, ROWS, CHANNELS)
    centre_ptr += head * d
    spread_ptr += head * d
    largest = tl.zeros([CHANNELS], tl.float64)
    for channel in range(0, d, CHANNELS):
        channels = channel + tl.arange(0, CHANNELS)
        largest = tl.maximum(largest, tl.load(spread_ptr + channels, mask=channels < d, other=0.0))
    scale = _inverse_power_of_two(tl.max(largest, 0))
    factor = tl.full([ROWS], 1.0, tl.float64)
    if X:
        farthest = tl.zeros([ROWS], tl.float64)
        for channel in range(0, d, CHANNELS):
            tile = _centred(rows_ptr, finite, centre_ptr, channel, d, stride_d, CHANNELS)
            farthest = tl.maximum(farthest, tl.max(tl.abs(tile), 1))
        factor = tl.minimum(_inverse_power_of_two(farthest * scale), 1.0)
    squares = tl.zeros([ROWS], tl.float64)
    out = head * padded + row
    for channel in range(0, width, CHANNELS):
        tile = _centred(rows_ptr, finite, centre_ptr, channel, d, stride_d, CHANNELS)
        tile = tile * (-scale if X else scale) * factor[:, None]
        squares += tl.sum(tile * tile, 1)
        channels = channel + tl.arange(0, CHANNELS)
        place = out.to(tl.int64)[:, None] * width + channels[None, :]
        inside = (row < padded)[:, None] & (channels < width)[None, :]
        value = tile.to(tl.float32)
        if MODE == "bf16":
            tl.store(high_ptr + place, value.to(tl.bfloat16).to(high_ptr.dtype.element_ty), mask=inside)
        else:
            high = round_tf32(value)
            tl.store(high_ptr + place, high, mask=inside)
            if MODE == "exact":
                tl.store(low_ptr + place, round_tf32(value - high), mask=inside)
    half = tl.where(finite, 0.5 * squares, float("inf")).to(tl.float32)
    tl.store(half_ptr + out, half, mask=row < padded)
    # Below 2⁻¹⁰⁰ the codes' lengths are negligible relative to the row's (the error bound covers this).
    tl.store(factor_ptr + out, tl.maximum(factor, 7.888609052210118e-31).to(tl.float32), mask=row < padded)


@triton.jit
def _centred(rows_ptr, finite, centre_ptr, channel, d, stride_d, CHANNELS: tl.constexpr):
    tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
    channels = channel + tl.arange(0, CHANNELS)
    centre = tl.load(centre_ptr + channels, mask=channels < d, other=0.0)
    return tl.where(finite[:, None], tile - centre[None, :], 0.0)
