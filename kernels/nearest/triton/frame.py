"""The location of a head's codes, which packing subtracts and divides by.

The centre is the mean code. The scale, a power of two near the largest |e − c|, follows from the spread, so that
nothing overflows.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.common.triton.recording import launched

WIDEST = 256  # channels of a code that stay in registers, so that it is read once
TILE = 2048  # elements of a tile of codes
SLICES = 256  # programs that share the codes of a head
PARTS, PART_CHANNELS = 64, 32  # slices and channels per step of the kernel that combines them
WARPS = 8


class Frame(NamedTuple):
    """The location of a head's codes, and two numbers that packing raises from zero."""

    centre: Tensor  # [H, D] float64 the mean code
    spread: Tensor  # [H, D] float64 the largest |e − c| of each channel
    lengths: Tensor  # [2, H] int32: the bits of float32 numbers, the largest ‖e‖² and ‖δe‖² of packed codes


def frame(codebook: Tensor) -> Frame:
    """Return centre and spread of the finite codes of each head of [H, K, D], and lengths of zero."""
    heads, size, d = codebook.shape
    channels, rows = tile_of(d)
    tiles = triton.cdiv(size, rows)
    share = triton.cdiv(tiles, SLICES)
    slices = triton.cdiv(tiles, share)
    partial = [codebook.new_empty((heads, slices, d), dtype=torch.float64) for _ in range(3)]
    counts = codebook.new_empty((heads, slices), dtype=torch.int32)
    _summarize[(heads * slices,)](
        codebook,
        *codebook.stride(),
        *partial,
        counts,
        size,
        slices,
        share,
        d,
        ONE_PASS=d <= channels,
        ROWS=rows,
        CHANNELS=channels,
        num_warps=WARPS,
    )
    result = Frame(
        centre=codebook.new_empty((heads, d), dtype=torch.float64),
        spread=codebook.new_empty((heads, d), dtype=torch.float64),
        lengths=codebook.new_empty((2, heads), dtype=torch.int32),
    )
    _combine[(heads * triton.cdiv(d, PART_CHANNELS),)](
        *partial, counts, *result, heads, slices, d, PARTS=PARTS, CHANNELS=PART_CHANNELS
    )
    return result


def tile_of(width: int) -> tuple[int, int]:
    """Return channels and rows of a tile for codes of this width: half as many rows if it takes several steps."""
    channels: int = min(WIDEST, max(16, triton.next_power_of_2(width)))
    rows = min(64, TILE // channels)
    return channels, rows if width <= channels else rows // 2


@triton.jit
def _is_finite(tile):
    """[R] bool: all channels of a row of the tile are finite."""
    return tl.min((tl.abs(tile) < float("inf")).to(tl.int32), 1) > 0


@triton.jit
def finite_rows(rows_ptr, mask, d, stride_d, CHANNELS: tl.constexpr):
    """[R] bool: the row is in range and all its channels are finite."""
    for channel in range(0, d, CHANNELS):
        mask = mask & _is_finite(load_tile(rows_ptr, mask, channel, d, stride_d, CHANNELS))
    return mask


@launched
@triton.jit(
    do_not_specialize=["stride_h", "stride_k", "size", "slices", "share"],
    do_not_specialize_on_alignment=["stride_d"],
)
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
    share,
    d,
    ONE_PASS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sum, smallest and largest of each channel over the finite codes of one slice, and their number.

    A slice is `share` tiles of ROWS codes.
    """
    part, head = tl.program_id(0) % slices, (tl.program_id(0) // slices).to(tl.int64)
    out = (head * slices + part) * d
    for channel in range(0, d, CHANNELS):
        channels = channel + tl.arange(0, CHANNELS)
        total = tl.zeros([CHANNELS], tl.float64)
        least = tl.full([CHANNELS], float("inf"), tl.float64)
        most = tl.full([CHANNELS], float("-inf"), tl.float64)
        count = 0
        for block in range(part * share, (part + 1) * share):
            row = block * ROWS + tl.arange(0, ROWS)
            rows_ptr = codes_ptr + head * stride_h + row.to(tl.int64) * stride_k
            if ONE_PASS:
                tile = load_tile(rows_ptr, row < size, channel, d, stride_d, CHANNELS)
                finite = (row < size) & _is_finite(tile)
                tile = tl.where(finite[:, None], tile, 0.0)
            else:
                finite = finite_rows(rows_ptr, row < size, d, stride_d, CHANNELS)
                tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
            total += tl.sum(tile, 0)
            least = tl.minimum(least, tl.min(tl.where(finite[:, None], tile, float("inf")), 0))
            most = tl.maximum(most, tl.max(tl.where(finite[:, None], tile, float("-inf")), 0))
            count += tl.sum(finite.to(tl.int32), 0)
        tl.store(sum_ptr + out + channels, total, mask=channels < d)
        tl.store(least_ptr + out + channels, least, mask=channels < d)
        tl.store(most_ptr + out + channels, most, mask=channels < d)
        tl.store(count_ptr + head * slices + part, count)


@launched
@triton.jit(do_not_specialize=["heads", "slices"])
def _combine(
    sum_ptr,
    least_ptr,
    most_ptr,
    count_ptr,
    centre_ptr,
    spread_ptr,
    lengths_ptr,
    heads,
    slices,
    d,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the summaries of all slices of a head, in the order of the slices, and zero the lengths."""
    blocks = tl.cdiv(d, CHANNELS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    channels = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float64)
    least = tl.full([CHANNELS], float("inf"), tl.float64)
    most = tl.full([CHANNELS], float("-inf"), tl.float64)
    count = tl.zeros([PARTS], tl.int32)
    for start in range(0, slices, PARTS):
        parts = start + tl.arange(0, PARTS)
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
    first = tl.program_id(0) % blocks == 0
    tl.store(lengths_ptr + head, 0, mask=first)
    tl.store(lengths_ptr + heads + head, 0, mask=first)
