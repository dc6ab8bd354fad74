"""Rows and codes in the columns of the search: centred, scaled, rounded to float16 and padded.

A code is divided by the frame's power of two, and a row by one of its own, so that neither overflows and no row is
too small for float16. Equations (8) and (9) of kernels/nearest/README.md.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.nearest.triton.frame import Frame
from quantizers.kernels.nearest.triton.tiles import BIAS_COLUMNS, Layout, Tiles, round_up

TILE = 512  # elements of a program's step: rows times columns
CHUNK = 64  # columns of a step at most
_BIAS_COLUMNS = tl.constexpr(BIAS_COLUMNS)
# Limits of a row's factor t. The lower is 2⁻²⁴, float16's smallest number.
_LEAST_FACTOR = tl.constexpr(torch.finfo(torch.float16).tiny * torch.finfo(torch.float16).eps)
_LARGEST_FACTOR = tl.constexpr(2.0**10)


class PackedRows(NamedTuple):
    """Packed vectors of all heads, with R a multiple of the search's block_n."""

    columns: Tensor  # [H, R, C] float16 of −x: the product then adds to the scores
    length: Tensor  # [H, R] float32 ‖x‖ before rounding; +inf for padding and for rows that are not finite
    residual: Tensor  # [H, R] float32, what rounding and the limit of the factor change: ‖δx‖ of (9)
    factor: Tensor  # [H, R] float32 power of two t by which the row is scaled beyond the head's scale


class PackedCodes(NamedTuple):
    """Packed codes of all heads, with K a multiple of the search's block_k."""

    columns: Tensor  # [H, K, C] float16
    half_squares: Tensor  # [H, K] float32 ½‖code‖²; +inf for padding and for codes that are not finite


class Permutation(NamedTuple):
    """Which row and which code each packed one is."""

    rows: Tensor  # [H, N] int64: indices of rows
    codes: Tensor  # [H, K] int32 with K padded: indices of codes, and the number of codes for padding


def block_sizes(cut: Layout) -> tuple[int, int]:
    """Return (rows, columns) of a program's step."""
    chunk = min(cut.width & -cut.width, CHUNK)
    return TILE // chunk, chunk


def pack(
    codebook: Tensor,
    x: Tensor,
    where: Frame,
    cut: Layout,
    sizes: Tiles,
    count: Tensor,
    codes: PackedCodes | None = None,
    order: Permutation | None = None,
) -> tuple[PackedRows, PackedCodes]:
    """Pack vectors [H, N, D] and the codebook [H, K, D], unless an earlier call returned its `codes`; one launch.

    With the codebook, also raises `where.lengths` to its codes'.

    Args:
        count: [H] int32, set to zero; `settle` counts rows in it.
        order: the order of packed rows and codes; None: their own.
    """
    heads, n, d = x.shape
    block, chunk = block_sizes(cut)
    rows, code_blocks = _empty_rows(x, round_up(n, sizes.block_n), cut), 0
    if codes is None:
        codes = _empty_codes(codebook, round_up(codebook.shape[1], sizes.block_k), cut)
        code_blocks = triton.cdiv(codes.half_squares.shape[1], block)
    padded, padded_size = rows.factor.shape[1], codes.half_squares.shape[1]
    _pack[(code_blocks + triton.cdiv(padded, block), heads)](
        codebook,
        *codebook.stride(),
        x,
        *x.stride(),
        *where,
        *codes,
        *rows,
        count,
        *(order or (None, None)),
        codebook.shape[1],
        padded_size,
        code_blocks,
        n,
        padded,
        d,
        BIAS=cut.bias_columns,
        COLUMNS=cut.width,
        ROWS=block,
        CHUNK=chunk,
        enable_fp_fusion=True,
    )
    return rows, codes


def _empty_rows(like: Tensor, padded: int, cut: Layout) -> PackedRows:
    length = like.new_empty((len(like), padded), dtype=torch.float32)
    return PackedRows(
        _empty_columns(like, padded, cut), length, torch.empty_like(length), torch.empty_like(length)
    )


def _empty_codes(like: Tensor, padded: int, cut: Layout) -> PackedCodes:
    half_squares = like.new_empty((len(like), padded), dtype=torch.float32)
    return PackedCodes(_empty_columns(like, padded, cut), half_squares)


def _empty_columns(like: Tensor, padded: int, cut: Layout) -> Tensor:
    return like.new_empty((len(like), padded, cut.width), dtype=torch.float16)


@triton.jit
def inverse_power_of_two(value):
    """2⁻ᵏ with 2ᵏ ≤ value < 2ᵏ⁺¹, for float64 values of at least 2⁻²⁰⁰ (smaller ones are treated as 2⁻²⁰⁰)."""
    bits = tl.maximum(value, 6.223015277861142e-61).to(tl.int64, bitcast=True)
    return ((2046 - (bits >> 52)) << 52).to(tl.float64, bitcast=True)


@launched
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
    lengths_ptr,
    e_columns_ptr,
    e_half_ptr,
    x_columns_ptr,
    length_ptr,
    residual_ptr,
    factor_ptr,
    count_ptr,
    row_order_ptr,
    code_order_ptr,
    size,
    padded_size,
    code_blocks,
    n,
    padded,
    d,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    head, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    centre_ptr += head * d
    spread_ptr += head * d
    if block < code_blocks:
        row = block * ROWS + tl.arange(0, ROWS)
        out, stored = head * padded_size + row, row < padded_size
        source = row.to(tl.int64)
        if code_order_ptr is not None:
            source = tl.load(code_order_ptr + out, mask=stored, other=size).to(tl.int64)
        finite, squares, lost, _, _ = _pack_rows(
            codes_ptr + head * stride_ch + source * stride_ck, stride_cd, source < size, centre_ptr,
            spread_ptr, e_columns_ptr + out * COLUMNS, stored, d, False, BIAS, COLUMNS, ROWS, CHUNK,
        )  # fmt: skip
        tl.store(e_half_ptr + out, tl.where(finite, 0.5 * squares, float("inf")).to(tl.float32), mask=stored)
        # The bits of numbers that are not negative have the order of the numbers.
        longest = tl.max(squares, 0).to(tl.float32).to(tl.int32, bitcast=True)
        tl.atomic_max(lengths_ptr + head, longest)
        roughest = tl.max(lost, 0).to(tl.float32).to(tl.int32, bitcast=True)
        tl.atomic_max(lengths_ptr + tl.num_programs(1) + head, roughest)
    else:
        if block == code_blocks:
            tl.store(count_ptr + head, 0)
        row = (block - code_blocks) * ROWS + tl.arange(0, ROWS)
        out, stored, inside = head * padded + row, row < padded, row < n
        source = row.to(tl.int64)
        if row_order_ptr is not None:
            source = tl.load(row_order_ptr + head * n + row, mask=inside, other=0)
        finite, squares, lost, factor, wanted = _pack_rows(
            x_ptr + head * stride_xh + source * stride_xn, stride_xd, inside, centre_ptr,
            spread_ptr, x_columns_ptr + out * COLUMNS, stored, d, True, BIAS, COLUMNS, ROWS, CHUNK,
        )  # fmt: skip
        tl.store(length_ptr + out, tl.where(finite, tl.sqrt(squares), float("inf")).to(tl.float32), mask=stored)
        # No code is longer than 2√D, so that this times R is no less than (t − t') ½R².
        excess = (factor - wanted) * tl.sqrt((d + tl.zeros([ROWS], tl.int32)).to(tl.float64))
        tl.store(residual_ptr + out, (tl.sqrt(lost) + excess).to(tl.float32), mask=stored)
        tl.store(factor_ptr + out, factor.to(tl.float32), mask=stored)


@triton.jit
def _pack_rows(
    rows_ptr,
    stride_d,
    inside,
    centre_ptr,
    spread_ptr,
    columns_ptr,
    stored,
    d,
    X: tl.constexpr,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Store the columns of vectors (X) or codes; zero for those that are not finite, and for padding.

    Returns, [ROWS] each: which are finite; in float64, ‖v‖² of their scaled values, ‖δv‖² of what rounding
    changes, the factor t, and the factor that the row is scaled by, which is smaller where t is at its limit.
    """
    # What the row is: finite, how far out. What follows reads it again, from the first-level cache.
    broken = tl.zeros([ROWS], tl.int32)
    farthest = tl.zeros([ROWS], tl.float64)
    spread = tl.zeros([CHUNK], tl.float64)
    for start in range(0, d, CHUNK):
        channels = start + tl.arange(0, CHUNK)
        here = channels < d
        tile = load_tile(rows_ptr, inside, start, d, stride_d, CHUNK)
        finite = tl.abs(tile) < float("inf")
        broken = tl.maximum(broken, tl.max(1 - finite.to(tl.int32), 1))
        tile = tl.where(finite, tile - tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :], 0.0)
        farthest = tl.maximum(farthest, tl.max(tl.abs(tile), 1))
        spread = tl.maximum(spread, tl.load(spread_ptr + channels, mask=here, other=0.0))
    finite = inside & (broken == 0)
    scale = inverse_power_of_two(tl.max(spread, 0))
    wanted = tl.full([ROWS], 1.0, tl.float64)
    if X:
        wanted = tl.where(finite, tl.minimum(inverse_power_of_two(farthest * scale), _LARGEST_FACTOR), 1.0)
    factor = tl.maximum(wanted, _LEAST_FACTOR)
    multiplier = wanted * scale
    squares = tl.zeros([ROWS], tl.float64)
    lost = tl.zeros([ROWS], tl.float64)
    for start in range(0, COLUMNS, CHUNK):
        channels = start + tl.arange(0, CHUNK)
        here = channels < d
        tile = load_tile(rows_ptr, finite, start, d, stride_d, CHUNK)
        tile -= tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :]
        tile = tl.where(finite[:, None], tile * multiplier[:, None], 0.0)
        value = tile.to(tl.float32).to(tl.float16)
        rest = tile - value.to(tl.float32).to(tl.float64)
        squares += tl.sum(tile * tile, 1)
        lost += tl.sum(rest * rest, 1)
        value = -value if X else value
        if BIAS:  # and then this step is the only one
            bias = _bias_columns((channels - d)[None, :], finite, squares, factor, X)
            value = tl.where(here[None, :], value, bias.to(tl.float16))
        tl.store(columns_ptr[:, None] + channels[None, :], value, mask=stored[:, None])
    return finite, squares, lost, factor, wanted


@triton.jit
def _bias_columns(piece, finite, squares, factor, X: tl.constexpr):
    """The columns whose products add up to t ½‖e‖²: t of vectors (X), and three numbers of 11 bits of codes.

    Args:
        piece: [1, C] the number of a column among them; others are zero.
    """
    if X:
        bias = tl.where((piece >= 0) & (piece < _BIAS_COLUMNS), factor[:, None], 0.0).to(tl.float32)
    else:
        half = (0.5 * squares).to(tl.float32)
        first = half.to(tl.float16).to(tl.float32)
        second = (half - first).to(tl.float16).to(tl.float32)
        bias = tl.where(piece == 0, tl.where(finite, first, float("inf"))[:, None], 0.0)
        bias = tl.where(piece == 1, second[:, None], bias)
        bias = tl.where(piece == 2, (half - first - second)[:, None], bias)
    return bias
