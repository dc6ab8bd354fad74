"""Rows and codes in the columns of the search by groups: centred, scaled, rounded and padded.

The layout (tiles.py) decides precision. Centre, scale and factors are those of the other search (../pack.py).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.groups.tiles import BIAS_COLUMNS, Layout
from quantizers.kernels.nearest.triton.pack import DROPPED_BITS, Frame, inverse_power_of_two, round_mantissa

TILE = 1024  # elements of a program's step: rows times columns
CHUNK = 64  # columns of a step at most
_BIAS_COLUMNS = tl.constexpr(BIAS_COLUMNS)


class PackedRows(NamedTuple):
    """Packed vectors of all heads, with R a multiple of the search's block_n."""

    columns: Tensor  # [H, R, C] of −x: the product then adds to the scores
    half_squares: Tensor  # [H, R] float32 ½‖row‖²; +inf for padding and for rows that are not finite
    factor: Tensor  # [H, R] float32 power of two by which the row is scaled beyond the head's scale


class PackedCodes(NamedTuple):
    """Packed codes of all heads, with K a multiple of the search's block_k."""

    columns: Tensor  # [H, K, C]
    half_squares: Tensor  # [H, K] float32 ½‖code‖²; +inf for padding and for codes that are not finite
    largest: Tensor  # [H, blocks] float32, the largest finite half square of each block of codes


def empty_rows(like: Tensor, padded: int, cut: Layout) -> PackedRows:
    """Return packed rows for vectors [H, N, D], to be written by `pack`."""
    half_squares = like.new_empty((len(like), padded), dtype=torch.float32)
    return PackedRows(_empty_columns(like, padded, cut), half_squares, torch.empty_like(half_squares))


def empty_codes(like: Tensor, padded: int, cut: Layout) -> PackedCodes:
    """Return packed codes for a codebook [H, K, D], to be written by `pack`."""
    half_squares = like.new_empty((len(like), padded), dtype=torch.float32)
    blocks = triton.cdiv(padded, _block_sizes(cut)[0])
    largest = like.new_empty((len(like), blocks), dtype=torch.float32)
    return PackedCodes(_empty_columns(like, padded, cut), half_squares, largest)


def _empty_columns(like: Tensor, padded: int, cut: Layout) -> Tensor:
    """bfloat16, or float32: of tf32's precision, or, where no GPU is, of bfloat16's, because Triton's interpreter
    gets products of bfloat16 wrong; in float32 they are exact, as in a matrix unit."""
    dtype = torch.bfloat16 if cut.values == "bf16" and like.is_cuda else torch.float32
    return like.new_empty((len(like), padded, cut.columns), dtype=dtype)


def _block_sizes(cut: Layout) -> tuple[int, int]:
    """(rows, columns) of a program's step."""
    chunk = min(cut.columns & -cut.columns, CHUNK)
    return TILE // chunk, chunk


def pack(
    codebook: Tensor,
    codes: PackedCodes,
    x: Tensor,
    rows: PackedRows,
    where: Frame,
    cut: Layout,
    count: Tensor,
    *,
    with_codes: bool,
) -> None:
    """Write the packed rows of vectors [H, N, D] and, with_codes, the packed codes of [H, K, D]; one launch.

    Vectors farther out than the codes get their own factors.

    Args:
        count: [H] int32, set to zero; `settle` counts rows in it.
    """
    heads, n, d = x.shape
    block, chunk = _block_sizes(cut)
    padded, padded_size = rows.factor.shape[1], codes.half_squares.shape[1]
    code_blocks = triton.cdiv(padded_size, block) if with_codes else 0
    _pack[(code_blocks + triton.cdiv(padded, block), heads)](
        codebook,
        *codebook.stride(),
        x,
        *x.stride(),
        where.centre,
        where.spread,
        *codes,
        *rows,
        count,
        codebook.shape[1],
        padded_size,
        code_blocks,
        n,
        padded,
        d,
        PARTS=cut.parts,
        PERIOD=cut.period,
        LOW_X=0 if cut.parts > 1 else -1,
        LOW_E={1: -1, 2: 0, 3: 1}[cut.parts],
        BIAS=cut.bias_columns,
        COLUMNS=cut.columns,
        DROPPED_BITS=DROPPED_BITS[cut.values],
        ROWS=block,
        CHUNK=chunk,
        enable_fp_fusion=True,
    )


@triton.jit
def _load(rows_ptr, channels, mask, stride_d):
    place = rows_ptr[:, None] + channels.to(tl.int64)[None, :] * stride_d
    return tl.load(place, mask=mask, other=0).to(tl.float64)


@triton.jit(
    do_not_specialize=[
        "stride_ch", "stride_ck", "stride_xh", "stride_xn", "size", "padded_size", "code_blocks", "n", "padded",
    ],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)  # fmt: skip
def _pack(
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    centre_ptr,
    spread_ptr,
    e_columns_ptr,
    e_half_ptr,
    largest_ptr,
    x_columns_ptr,
    x_half_ptr,
    factor_ptr,
    count_ptr,
    size,
    padded_size,
    code_blocks,
    n,
    padded,
    d,
    PARTS: tl.constexpr,
    PERIOD: tl.constexpr,
    LOW_X: tl.constexpr,
    LOW_E: tl.constexpr,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROPPED_BITS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    head, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    centre_ptr += head * d
    spread_ptr += head * d
    if block < code_blocks:
        _pack_block(
            codes_ptr + head * stride_ch, stride_ck, stride_cd, centre_ptr, spread_ptr,
            e_columns_ptr, e_half_ptr, largest_ptr + head * code_blocks + block, head, block, size, padded_size,
            d, False, PARTS, PERIOD, LOW_E, BIAS, COLUMNS, DROPPED_BITS, ROWS, CHUNK,
        )  # fmt: skip
    else:
        if block == code_blocks:
            tl.store(count_ptr + head, 0)
        _pack_block(
            x_ptr + head * stride_xh, stride_xn, stride_xd, centre_ptr, spread_ptr,
            x_columns_ptr, x_half_ptr, factor_ptr, head, block - code_blocks, n, padded,
            d, True, PARTS, PERIOD, LOW_X, BIAS, COLUMNS, DROPPED_BITS, ROWS, CHUNK,
        )  # fmt: skip


@triton.jit
def _pack_block(
    vectors_ptr,
    stride_r,
    stride_d,
    centre_ptr,
    spread_ptr,
    columns_ptr,
    half_ptr,
    result_ptr,
    head,
    block,
    rows,
    padded,
    d,
    X: tl.constexpr,
    PARTS: tl.constexpr,
    PERIOD: tl.constexpr,
    LOW: tl.constexpr,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROPPED_BITS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Pack one block of vectors (X) or codes.

    The copies of the channels among the columns are high halves, except copy LOW, if there is one.

    Args:
        result_ptr: to the factors of all heads, or to the largest half square of this block of codes.
    """
    row = block * ROWS + tl.arange(0, ROWS)
    rows_ptr = vectors_ptr + row.to(tl.int64) * stride_r
    inside = row < rows
    # What the row is: finite, how far out, how long. What follows reads it again, from the first-level cache.
    broken = tl.zeros([ROWS], tl.int32)
    farthest = tl.zeros([ROWS], tl.float64)
    squares = tl.zeros([ROWS], tl.float64)
    spread = tl.zeros([CHUNK], tl.float64)
    for start in range(0, d, CHUNK):
        channels = start + tl.arange(0, CHUNK)
        here = channels < d
        tile = _load(rows_ptr, channels, inside[:, None] & here[None, :], stride_d)
        finite = tl.abs(tile) < float("inf")
        broken = tl.maximum(broken, tl.max(1 - finite.to(tl.int32), 1))
        tile = tl.where(finite, tile - tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :], 0.0)
        farthest = tl.maximum(farthest, tl.max(tl.abs(tile), 1))
        squares += tl.sum(tile * tile, 1)
        spread = tl.maximum(spread, tl.load(spread_ptr + channels, mask=here, other=0.0))
    finite = inside & (broken == 0)
    scale = inverse_power_of_two(tl.max(spread, 0))
    factor = tl.full([ROWS], 1.0, tl.float64)
    if X:
        factor = tl.where(finite, tl.minimum(inverse_power_of_two(farthest * scale), 1.0), 1.0)
    multiplier = factor * scale
    half = tl.where(finite, 0.5 * squares * multiplier * multiplier, 0.0).to(tl.float32)
    # Below 2⁻¹⁰⁰ the codes' lengths are negligible relative to the row's (the error bound covers this).
    factor = tl.maximum(factor, 7.888609052210118e-31).to(tl.float32)
    out = head * padded + row
    tl.store(half_ptr + out, tl.where(finite, half, float("inf")), mask=row < padded)
    if X:
        tl.store(result_ptr + out, factor, mask=row < padded)
    else:
        tl.store(result_ptr, tl.max(half, 0))
    for start in range(0, COLUMNS, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        part = columns // PERIOD
        channels = columns - part * PERIOD
        here = (part < PARTS) & (channels < d)
        tile = _load(rows_ptr, channels, finite[:, None] & here[None, :], stride_d)
        tile -= tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :]
        tile = tl.where(finite[:, None], tile * (-multiplier if X else multiplier)[:, None], 0.0)
        value = round_mantissa(tile.to(tl.float32), DROPPED_BITS)
        if LOW >= 0:
            rest = round_mantissa((tile - value.to(tl.float64)).to(tl.float32), DROPPED_BITS)
            value = tl.where((part == LOW)[None, :], rest, value)
        if BIAS:
            piece = (columns - PARTS * PERIOD)[None, :]
            if X:
                bias = tl.where((piece >= 0) & (piece < _BIAS_COLUMNS), factor[:, None], 0.0)
            else:
                first = round_mantissa(half, DROPPED_BITS)
                second = round_mantissa(half - first, DROPPED_BITS)
                third = round_mantissa(half - first - second, DROPPED_BITS)
                bias = tl.where(piece == 0, tl.where(finite, first, float("inf"))[:, None], 0.0)
                bias = tl.where(piece == 1, second[:, None], bias)
                bias = tl.where(piece == 2, third[:, None], bias)
            value = tl.where(here[None, :], value, bias)
        place = out.to(tl.int64)[:, None] * COLUMNS + columns[None, :]
        tl.store(columns_ptr + place, value.to(columns_ptr.dtype.element_ty), mask=(row < padded)[:, None])
