"""Rows and codes in the columns of the search by groups: centred, scaled, rounded and padded.

The layout (tiles.py) decides precision. Centre, scale and factors are those of the other search (../pack.py).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.groups.tiles import BIAS_COLUMNS, Layout
from quantizers.kernels.nearest.triton.pack import Frame, _inverse_power_of_two

ROWS = 16  # per program
CHUNK = 128  # channels or columns per step
_DROPPED_BITS = {"tf32": 13, "bf16": 16}  # of float32's mantissa
_BIAS_COLUMNS = tl.constexpr(BIAS_COLUMNS)


class Packed(NamedTuple):
    """Packed rows or codes of all heads, with R a multiple of the search's tile."""

    columns: Tensor  # [H, R, C] bfloat16, or float32: of tf32's precision, or rounded to bfloat16 where no GPU is
    half_squares: Tensor  # [H, R] float32 ½‖row‖²; +inf for padding and for rows that are not finite
    factor: Tensor  # [H, R] float32 power of two by which the row is scaled beyond the head's scale


def pack_codes(codebook: Tensor, where: Frame, padded: int, cut: Layout, largest: Tensor) -> Packed:
    """Return the packed codes [H, K, D], and raise `largest` [H] int32, the bits of a float32, to the largest finite
    half square."""
    return _launch(codebook, where, padded, cut, largest, is_x=False)


def pack_rows(x: Tensor, where: Frame, padded: int, cut: Layout) -> Packed:
    """Return the packed vectors [H, N, D], as −x: the product then adds to the scores. Those farther out than the
    codes get their own factors."""
    return _launch(x, where, padded, cut, where.centre, is_x=True)


def _launch(vectors: Tensor, where: Frame, padded: int, cut: Layout, largest: Tensor, *, is_x: bool) -> Packed:
    heads, rows, d = vectors.shape
    # Triton's interpreter gets products of bfloat16 wrong; in float32 they are exact, as in a matrix unit.
    dtype = torch.bfloat16 if cut.values == "bf16" and vectors.is_cuda else torch.float32
    columns = vectors.new_empty((heads, padded, cut.columns), dtype=dtype)
    half_squares = vectors.new_empty((heads, padded), dtype=torch.float32)
    factor = torch.empty_like(half_squares)
    low = 1 if cut.parts == 3 and not is_x else 0
    _pack[(triton.cdiv(padded, ROWS), heads)](
        vectors,
        *vectors.stride(),
        *where,
        columns,
        half_squares,
        factor,
        largest,
        rows,
        padded,
        d,
        cut.period,
        X=is_x,
        PARTS=cut.parts,
        LOW=low if cut.parts > 1 else -1,
        BIAS=cut.bias_columns,
        COLUMNS=cut.columns,
        DROPPED_BITS=_DROPPED_BITS[cut.values],
        ROWS=ROWS,
        CHUNK=CHUNK,
        enable_fp_fusion=True,
    )
    return Packed(columns, half_squares, factor)


@triton.jit
def round_mantissa(value, DROPPED_BITS: tl.constexpr):
    """The nearest float32 whose last mantissa bits are zero, halves away from zero; infinity stays."""
    bits = value.to(tl.int32, bitcast=True)
    return ((bits + (1 << (DROPPED_BITS - 1))) & -(1 << DROPPED_BITS)).to(tl.float32, bitcast=True)


@triton.jit
def _load(rows_ptr, channels, mask, stride_d):
    place = rows_ptr[:, None] + channels.to(tl.int64)[None, :] * stride_d
    return tl.load(place, mask=mask, other=0).to(tl.float64)


@triton.jit(do_not_specialize=["stride_h", "stride_r", "rows", "padded"])
def _pack(
    vectors_ptr,
    stride_h,
    stride_r,
    stride_d,
    centre_ptr,
    spread_ptr,
    columns_ptr,
    half_ptr,
    factor_ptr,
    largest_ptr,
    rows,
    padded,
    d,
    period,
    X: tl.constexpr,
    PARTS: tl.constexpr,
    LOW: tl.constexpr,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROPPED_BITS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The copies of the channels among the columns are high halves, except copy LOW, if there is one."""
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    rows_ptr = vectors_ptr + head * stride_h + row.to(tl.int64) * stride_r
    inside = row < rows
    centre_ptr += head * d
    spread_ptr += head * d
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
    scale = _inverse_power_of_two(tl.max(spread, 0))
    if X:
        factor = tl.minimum(_inverse_power_of_two(farthest * scale), 1.0)
        factor = tl.where(finite, factor, 1.0)
    else:
        factor = tl.full([ROWS], 1.0, tl.float64)
    multiplier = factor * scale
    half = tl.where(finite, 0.5 * squares * multiplier * multiplier, 0.0).to(tl.float32)
    # Below 2⁻¹⁰⁰ the codes' lengths are negligible relative to the row's (the error bound covers this).
    stored_factor = tl.maximum(factor, 7.888609052210118e-31).to(tl.float32)
    out = head * padded + row
    tl.store(half_ptr + out, tl.where(finite, half, float("inf")), mask=row < padded)
    tl.store(factor_ptr + out, stored_factor, mask=row < padded)
    if not X:
        # The bits of non-negative numbers have the same order as the numbers.
        tl.atomic_max(largest_ptr + head, tl.max(half, 0).to(tl.int32, bitcast=True))
    for start in range(0, COLUMNS, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        part = columns // period
        channels = columns - part * period
        here = (part < PARTS) & (channels < d)
        tile = _load(rows_ptr, channels, finite[:, None] & here[None, :], stride_d)
        tile -= tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :]
        tile = tl.where(finite[:, None], tile * (-multiplier if X else multiplier)[:, None], 0.0)
        value = round_mantissa(tile.to(tl.float32), DROPPED_BITS)
        if LOW >= 0:
            rest = round_mantissa((tile - value.to(tl.float64)).to(tl.float32), DROPPED_BITS)
            value = tl.where((part == LOW)[None, :], rest, value)
        if BIAS:
            piece = (columns - PARTS * period)[None, :]
            if X:
                bias = tl.where((piece >= 0) & (piece < _BIAS_COLUMNS), stored_factor[:, None], 0.0)
            else:
                first = round_mantissa(half, DROPPED_BITS)
                second = round_mantissa(half - first, DROPPED_BITS)
                third = round_mantissa(half - first - second, DROPPED_BITS)
                first = tl.where(finite, first, float("inf"))
                bias = tl.where(piece == 0, first[:, None], 0.0)
                bias = tl.where(piece == 1, second[:, None], bias)
                bias = tl.where(piece == 2, third[:, None], bias)
            value = tl.where(here[None, :], value, bias)
        place = out.to(tl.int64)[:, None] * COLUMNS + columns[None, :]
        mask = (row < padded)[:, None] & (columns < COLUMNS)[None, :]
        tl.store(columns_ptr + place, value.to(columns_ptr.dtype.element_ty), mask=mask)
