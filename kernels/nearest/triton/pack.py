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

from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.tiles import Tiles, round_up

WIDEST = 256  # channels of a row that stay in registers, so that it is read once
TILE = 4096  # elements of a tile of vectors or codes to pack, at most 64 rows
SUMMARY_TILE = 2048  # elements of a tile of codes to summarize
SLICES = 256  # programs that share the codes of a head, to find their location
PARTS, PART_CHANNELS = 64, 32  # slices and channels per step of the kernel that combines them
WARPS = 8
DROPPED_BITS = {"tf32": 13, "bf16": 16}  # of float32's mantissa


class Frame(NamedTuple):
    """The location of a head's codes, in float64, and two counters, zero until later kernels raise them."""

    centre: Tensor  # [H, D] the mean code
    spread: Tensor  # [H, D] the largest |e − c| of each channel
    longest: Tensor  # [H] int32: the bits of the largest ½‖e‖² of packed codes, a float32
    undecided: Tensor  # [1] int64: how many rows are left to the rescan


class Packed(NamedTuple):
    """Packed vectors or codes, with D padded to a multiple of the search's block_d and R to whole tiles."""

    high: Tensor  # [H, R, D] float32 of tf32's precision, or bfloat16 (off the GPU, rounded to it in float32)
    low: Tensor  # the remainder of the float32 value, in the same dtype; equals `high` if one half is enough
    half_squares: Tensor  # [H, R] float32 ½‖row‖²; +inf for padding and for rows that are not finite
    factor: Tensor  # [H, R] float32 power of two that scales the row beyond the head's scale; of vectors only


def frame(codebook: Tensor) -> Frame:
    """Return centre and spread of the finite codes of each head of [H, K, D], and zeroed counters."""
    heads, size, d = codebook.shape
    channels, rows = tile_of(d, SUMMARY_TILE)
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
        longest=codebook.new_empty((heads,), dtype=torch.int32),
        undecided=codebook.new_empty((1,), dtype=torch.int64),
    )
    _combine[(heads * triton.cdiv(d, PART_CHANNELS),)](
        *partial, counts, *result, slices, d, PARTS=PARTS, CHANNELS=PART_CHANNELS
    )
    return result


def pack(
    x: Tensor, codebook: Tensor, where: Frame, tiles: Tiles, mode: Mode, rows: range, codes: Packed | None = None
) -> tuple[Packed, Packed]:
    """Pack `rows` of x [H, N, D], and the codebook [H, K, D] unless an earlier call returned its `codes`.

    Vectors are packed as −x, so that the product adds to the scores and no instruction changes its sign. Raises
    `where.longest` in place.

    Returns: the packed vectors and codes.
    """
    heads, _, d = x.shape
    width = round_up(d, tiles.block_d)
    channels, tile_rows = tile_of(width, TILE)
    vectors = _empty(x, round_up(len(rows), tiles.block_n), width, mode)
    programs = 0
    if codes is None:
        codes = _empty(codebook, round_up(codebook.shape[1], tiles.block_k), width, mode)
        programs = heads * triton.cdiv(codes.high.shape[1], tile_rows)
    _pack[(programs + heads * triton.cdiv(vectors.high.shape[1], tile_rows),)](
        x,
        *x.stride(),
        codebook,
        *codebook.stride(),
        where.centre,
        where.spread,
        where.longest,
        *vectors,
        *codes[:3],
        rows.start,
        rows.stop,
        vectors.high.shape[1],
        codebook.shape[1],
        codes.high.shape[1],
        programs,
        d,
        width,
        MODE=mode,
        ONE_PASS=width <= channels,
        ROWS=tile_rows,
        CHANNELS=channels,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )
    return vectors, codes


def tile_of(width: int, elements: int) -> tuple[int, int]:
    """Return channels and rows of a tile for rows of this width: half as many rows if it takes several steps."""
    channels: int = min(WIDEST, max(16, triton.next_power_of_2(width)))
    rows = min(64, elements // channels)
    return channels, rows if width <= channels else rows // 2


def _empty(vectors: Tensor, rows: int, width: int, mode: Mode) -> Packed:
    # Triton's interpreter gets products of bfloat16 wrong; in float32 they are exact, as in a matrix unit.
    dtype = torch.bfloat16 if mode == "bf16" and vectors.is_cuda else torch.float32
    high = vectors.new_empty((vectors.shape[0], rows, width), dtype=dtype)
    low = torch.empty_like(high) if mode == "exact" else high
    half_squares = vectors.new_empty(high.shape[:2], dtype=torch.float32)
    return Packed(high, low, half_squares, torch.empty_like(half_squares))


@triton.jit
def _is_finite(tile):
    """[R] bool: all channels of a row of the tile are finite."""
    return tl.min((tl.abs(tile) < float("inf")).to(tl.int32), 1) > 0


@triton.jit
def _finite_rows(rows_ptr, mask, d, stride_d, CHANNELS: tl.constexpr):
    """[R] bool: the row is in range and all its channels are finite."""
    for channel in range(0, d, CHANNELS):
        mask = mask & _is_finite(load_tile(rows_ptr, mask, channel, d, stride_d, CHANNELS))
    return mask


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
                finite = _finite_rows(rows_ptr, row < size, d, stride_d, CHANNELS)
                tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
            total += tl.sum(tile, 0)
            least = tl.minimum(least, tl.min(tl.where(finite[:, None], tile, float("inf")), 0))
            most = tl.maximum(most, tl.max(tl.where(finite[:, None], tile, float("-inf")), 0))
            count += tl.sum(finite.to(tl.int32), 0)
        tl.store(sum_ptr + out + channels, total, mask=channels < d)
        tl.store(least_ptr + out + channels, least, mask=channels < d)
        tl.store(most_ptr + out + channels, most, mask=channels < d)
        tl.store(count_ptr + head * slices + part, count)


@triton.jit(do_not_specialize=["slices"])
def _combine(
    sum_ptr,
    least_ptr,
    most_ptr,
    count_ptr,
    centre_ptr,
    spread_ptr,
    longest_ptr,
    undecided_ptr,
    slices,
    d,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the summaries of all slices of a head, in the order of the slices, and zero the counters."""
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
    tl.store(longest_ptr + head, 0, mask=tl.program_id(0) % blocks == 0)
    tl.store(undecided_ptr, 0, mask=tl.program_id(0) == 0)


@triton.jit
def inverse_power_of_two(value):
    """2⁻ᵏ with 2ᵏ ≤ value < 2ᵏ⁺¹, for float64 values of at least 2⁻²⁰⁰ (smaller ones are treated as 2⁻²⁰⁰)."""
    bits = tl.maximum(value, 6.223015277861142e-61).to(tl.int64, bitcast=True)
    return ((2046 - (bits >> 52)) << 52).to(tl.float64, bitcast=True)


@triton.jit
def round_mantissa(value, DROPPED_BITS: tl.constexpr):
    """The nearest float32 whose last mantissa bits are zero, halves away from zero; infinity stays."""
    bits = value.to(tl.int32, bitcast=True)
    return ((bits + (1 << (DROPPED_BITS - 1))) & -(1 << DROPPED_BITS)).to(tl.float32, bitcast=True)


@triton.jit(
    do_not_specialize=[
        "stride_xh",
        "stride_xn",
        "stride_ch",
        "stride_ck",
        "first",
        "stop",
        "padded",
        "size",
        "padded_size",
        "code_programs",
    ],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _pack(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    centre_ptr,
    spread_ptr,
    longest_ptr,
    x_high_ptr,
    x_low_ptr,
    x_half_ptr,
    factor_ptr,
    e_high_ptr,
    e_low_ptr,
    e_half_ptr,
    first,
    stop,
    padded,
    size,
    padded_size,
    code_programs,
    d,
    width,
    MODE: tl.constexpr,
    ONE_PASS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The first `code_programs` programs pack codes, the others the vectors from `first` to `stop`."""
    program = tl.program_id(0)
    if program < code_programs:
        _pack_codes(
            program,
            codes_ptr,
            stride_ch,
            stride_ck,
            stride_cd,
            centre_ptr,
            spread_ptr,
            longest_ptr,
            e_high_ptr,
            e_low_ptr,
            e_half_ptr,
            size,
            padded_size,
            d,
            width,
            MODE,
            ONE_PASS,
            ROWS,
            CHANNELS,
        )
    else:
        _pack_vectors(
            program - code_programs,
            x_ptr,
            stride_xh,
            stride_xn,
            stride_xd,
            centre_ptr,
            spread_ptr,
            x_high_ptr,
            x_low_ptr,
            x_half_ptr,
            factor_ptr,
            first,
            stop,
            padded,
            d,
            width,
            MODE,
            ONE_PASS,
            ROWS,
            CHANNELS,
        )


@triton.jit
def _pack_codes(
    program,
    codes_ptr,
    stride_h,
    stride_k,
    stride_d,
    centre_ptr,
    spread_ptr,
    longest_ptr,
    high_ptr,
    low_ptr,
    half_ptr,
    size,
    padded,
    d,
    width,
    MODE: tl.constexpr,
    ONE_PASS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(padded, ROWS)
    head = (program // blocks).to(tl.int64)
    row = (program % blocks) * ROWS + tl.arange(0, ROWS)
    out, inside = head * padded + row, row < padded
    scale = _scale(spread_ptr + head * d, d, CHANNELS)
    half, _ = _pack_rows(
        codes_ptr + head * stride_h + row.to(tl.int64) * stride_k,
        row < size,
        stride_d,
        centre_ptr + head * d,
        scale,
        high_ptr,
        low_ptr,
        out,
        inside,
        d,
        width,
        False,
        MODE,
        ONE_PASS,
        ROWS,
        CHANNELS,
    )
    tl.store(half_ptr + out, half, mask=inside)
    # The bits of non-negative numbers have the same order as the numbers.
    longest = tl.max(tl.where(half < float("inf"), half, 0.0), 0)
    tl.atomic_max(longest_ptr + head, longest.to(tl.int32, bitcast=True))


@triton.jit
def _pack_vectors(
    program,
    x_ptr,
    stride_h,
    stride_n,
    stride_d,
    centre_ptr,
    spread_ptr,
    high_ptr,
    low_ptr,
    half_ptr,
    factor_ptr,
    first,
    stop,
    padded,
    d,
    width,
    MODE: tl.constexpr,
    ONE_PASS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(padded, ROWS)
    head = (program // blocks).to(tl.int64)
    row = (program % blocks) * ROWS + tl.arange(0, ROWS)
    out, inside = head * padded + row, row < padded
    scale = _scale(spread_ptr + head * d, d, CHANNELS)
    half, factor = _pack_rows(
        x_ptr + head * stride_h + (first + row).to(tl.int64) * stride_n,
        first + row < stop,
        stride_d,
        centre_ptr + head * d,
        scale,
        high_ptr,
        low_ptr,
        out,
        inside,
        d,
        width,
        True,
        MODE,
        ONE_PASS,
        ROWS,
        CHANNELS,
    )
    tl.store(half_ptr + out, half, mask=inside)
    # Below 2⁻¹⁰⁰ the codes' lengths are negligible relative to the row's (the error bound covers this).
    tl.store(factor_ptr + out, tl.maximum(factor, 7.888609052210118e-31).to(tl.float32), mask=inside)


@triton.jit
def _scale(spread_ptr, d, CHANNELS: tl.constexpr):
    """The inverse of a power of two near the largest spread [d]."""
    largest = tl.zeros([CHANNELS], tl.float64)
    for channel in range(0, d, CHANNELS):
        channels = channel + tl.arange(0, CHANNELS)
        largest = tl.maximum(largest, tl.load(spread_ptr + channels, mask=channels < d, other=0.0))
    return inverse_power_of_two(tl.max(largest, 0))


@triton.jit
def _pack_rows(
    rows_ptr,
    mask,
    stride_d,
    centre_ptr,
    scale,
    high_ptr,
    low_ptr,
    out,
    out_mask,
    d,
    width,
    X: tl.constexpr,
    MODE: tl.constexpr,
    ONE_PASS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Store (row − centre) · scale · factor in the rows `out`: negative if X, zero for rows that are not finite.

    Returns ½‖stored‖² [ROWS] float32, +inf for rows that are not finite, and the factors [ROWS], 1 unless X.
    """
    factor = tl.full([ROWS], 1.0, tl.float64)
    if ONE_PASS:
        tile = load_tile(rows_ptr, mask, 0, d, stride_d, CHANNELS)
        finite = mask & _is_finite(tile)
        tile = _centre(tile, finite, centre_ptr, 0, d, CHANNELS)
        if X:
            factor = tl.minimum(inverse_power_of_two(tl.max(tl.abs(tile), 1) * scale), 1.0)
        tile = tile * (-scale if X else scale) * factor[:, None]
        squares = tl.sum(tile * tile, 1)
        _store(tile, high_ptr, low_ptr, out, out_mask, 0, width, MODE, CHANNELS)
    else:
        finite = _finite_rows(rows_ptr, mask, d, stride_d, CHANNELS)
        if X:
            farthest = tl.zeros([ROWS], tl.float64)
            for channel in range(0, d, CHANNELS):
                tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
                tile = _centre(tile, finite, centre_ptr, channel, d, CHANNELS)
                farthest = tl.maximum(farthest, tl.max(tl.abs(tile), 1))
            factor = tl.minimum(inverse_power_of_two(farthest * scale), 1.0)
        squares = tl.zeros([ROWS], tl.float64)
        for channel in range(0, width, CHANNELS):
            tile = load_tile(rows_ptr, finite, channel, d, stride_d, CHANNELS)
            tile = _centre(tile, finite, centre_ptr, channel, d, CHANNELS)
            tile = tile * (-scale if X else scale) * factor[:, None]
            squares += tl.sum(tile * tile, 1)
            _store(tile, high_ptr, low_ptr, out, out_mask, channel, width, MODE, CHANNELS)
    return tl.where(finite, 0.5 * squares, float("inf")).to(tl.float32), factor


@triton.jit
def _centre(tile, finite, centre_ptr, channel, d, CHANNELS: tl.constexpr):
    channels = channel + tl.arange(0, CHANNELS)
    centre = tl.load(centre_ptr + channels, mask=channels < d, other=0.0)
    return tl.where(finite[:, None], tile - centre[None, :], 0.0)


@triton.jit
def _store(tile, high_ptr, low_ptr, out, mask, channel, width, MODE: tl.constexpr, CHANNELS: tl.constexpr):
    """Store a tile in the precision of the mode."""
    high_row_ptr = high_ptr + out.to(tl.int64) * width
    value = tile.to(tl.float32)
    if MODE == "bf16":
        store_tile(high_row_ptr, mask, channel, width, 1, value.to(tl.bfloat16), CHANNELS)
    else:
        high = round_mantissa(value, 13)  # bits, for tf32
        store_tile(high_row_ptr, mask, channel, width, 1, high, CHANNELS)
        if MODE == "exact":
            low = round_mantissa(value - high, 13)
            store_tile(low_ptr + out.to(tl.int64) * width, mask, channel, width, 1, low, CHANNELS)
