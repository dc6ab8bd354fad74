"""The nearest code of each row from its best groups, and the list of rows that need every code.

Equation (16) of README.md.
"""

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.groups.candidates import nearest_candidate
from quantizers.kernels.nearest.triton.groups.exhaustive import Rows
from quantizers.kernels.nearest.triton.groups.minima import combine_columns, empty_state, insert
from quantizers.kernels.nearest.triton.groups.pack import PackedCodes, PackedRows
from quantizers.kernels.nearest.triton.groups.search import Minima
from quantizers.kernels.nearest.triton.groups.tiles import CLASSES, Bound, Tiles
from quantizers.kernels.nearest.triton.lookup import Found, look_up
from quantizers.kernels.nearest.triton.pack import Frame

ROWS = 8  # per program
SPLITS = 16  # merged at a time
BLOCKS = 256  # of codes, whose largest squares are compared at a time
VALUES = 8  # float64 sums per thread
WARPS = 4
REGISTERS = 128  # per thread at most: four blocks a multiprocessor hide the latency of their gathers
_CLASSES = tl.constexpr(CLASSES)
_NONE = tl.constexpr(2**31 - 1)  # instead of an index


def settle(
    minima: Minima,
    packed: PackedRows,
    packed_codes: PackedCodes,
    x: Tensor,
    codebook: Tensor,
    where: Frame,
    bound: Bound | None,
    tiles: Tiles,
    left: Rows,
    found: Found,
    first: int,
) -> None:
    """Write the results of the rows of [H, N, D] that their best groups settle, and append the others to `left`.

    Args:
        bound: the coefficients of the error of a score; None: errors are ignored and no row is left.
        first: position of the first row in `found`.
    """
    heads, n, d = x.shape
    members = tiles.block_k // CLASSES
    error = bound or Bound(0.0, 0.0)
    _settle[(triton.cdiv(n, ROWS), heads)](
        *minima,
        packed.half_squares,
        packed.factor,
        packed_codes.largest,
        x,
        *x.stride(),
        codebook,
        *codebook.stride(),
        where.centre,
        where.spread,
        left.listed,
        left.number,
        *found,
        n,
        packed.factor.shape[1],
        codebook.shape[1],
        packed_codes.largest.shape[1],
        minima.scores.shape[1],
        d,
        first,
        found.indices.shape[1],
        error.product,
        error.square,
        CERTIFY=bound is not None,
        CODES=found.codes.dim() == 3,
        BLOCK_K=tiles.block_k,
        ROWS=ROWS,
        SPLITS=SPLITS,
        BLOCKS=BLOCKS,
        CHANNELS=channels_per_step(d, ROWS * members),
        num_warps=WARPS,
        maxnreg=REGISTERS,
        enable_fp_fusion=True,
    )


def channels_per_step(d: int, pairs: int) -> int:
    """Return the channels of a step over `pairs` pairs of a row and a code: what fits in registers."""
    fit = min(VALUES * 32 * WARPS // pairs, 8)
    return max(2, min(fit, 1 << (d - 1).bit_length()))


@triton.jit
def _members(group, BLOCK_K: tl.constexpr, MEMBERS: tl.constexpr):
    """The codes [R, MEMBERS] of each group [R], in ascending order."""
    member = tl.arange(0, MEMBERS)
    first = group // _CLASSES * BLOCK_K + group % _CLASSES * 2
    return first[:, None] + (member // 2 * (2 * _CLASSES) + member % 2)[None, :]


@triton.jit(
    do_not_specialize=[
        "stride_xh", "stride_xn", "stride_ch", "stride_ck",
        "n", "padded", "size", "blocks", "splits", "first", "total",
    ],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)  # fmt: skip
def _settle(
    score_ptr,
    group_ptr,
    x_half_ptr,
    factor_ptr,
    largest_ptr,
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
    listed_ptr,
    count_ptr,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    n,
    padded,
    size,
    blocks,
    splits,
    d,
    first,
    total,
    product_error,
    square_error,
    CERTIFY: tl.constexpr,
    CODES: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCKS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    best, second, third, best_group, second_group = empty_state(ROWS, SPLITS)
    slot = head * padded + row
    stride = heads.to(tl.int64) * padded
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        mask = inside[:, None] & (split < splits)[None, :]
        place = split.to(tl.int64)[None, :] * stride + slot[:, None]
        for rank in tl.static_range(2):
            value = tl.load(score_ptr + rank * splits * stride + place, mask=mask, other=float("inf"))
            group = tl.load(group_ptr + rank * splits * stride + place, mask=mask, other=0)
            best, second, third, best_group, second_group = insert(
                best, second, third, best_group, second_group, value, group
            )
        value = tl.load(score_ptr + 2 * splits * stride + place, mask=mask, other=float("inf"))
        third = tl.minimum(third, value)
    smallest, second_smallest, third_smallest, group_1, group_2 = combine_columns(
        best, second, third, best_group, second_group
    )
    half = tl.load(x_half_ptr + slot, mask=inside, other=float("inf"))
    found = (half < float("inf")) & (smallest < float("inf"))
    factor = tl.load(factor_ptr + slot, mask=inside, other=1.0)
    largest = tl.zeros([BLOCKS], tl.float32)
    for start in range(0, blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        value = tl.load(largest_ptr + head * blocks + block, mask=block < blocks, other=0.0)
        largest = tl.maximum(largest, value)
    radius_square = 2 * tl.max(largest, 0)
    length = tl.sqrt(2 * tl.where(found, half, 0.0))
    bound = product_error * length * tl.sqrt(radius_square) + square_error * factor * radius_square
    base = tl.where(found, smallest, 0.0)
    also = found & ~(second_smallest - base > 2 * bound)
    left = found & ~(third_smallest - base > 2 * bound)
    if not CERTIFY:
        left = left & False
    x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
    codes_ptr += head * stride_ch
    centre_ptr += head * d
    spread_ptr += head * d
    MEMBERS: tl.constexpr = BLOCK_K // _CLASSES
    decided = found & ~left
    also = decided & also
    one = _members(tl.where(decided, group_1, 0), BLOCK_K, MEMBERS)
    if tl.max(also.to(tl.int32), 0) > 0:
        # Both groups side by side, for all rows of the program.
        other = _members(tl.where(also, group_2, 0), BLOCK_K, MEMBERS)
        both = tl.reshape(tl.join(one, other), [ROWS, 2 * MEMBERS])
        in_one = (tl.arange(0, 2 * MEMBERS) % 2 == 0)[None, :]
        index = nearest_candidate(
            x_row_ptr, stride_xd, codes_ptr + both.to(tl.int64) * stride_ck, stride_cd, both,
            decided[:, None] & (in_one | also[:, None]) & (both < size),
            centre_ptr, spread_ptr, d, ROWS, 2 * MEMBERS, CHANNELS // 2,
        )  # fmt: skip
    else:
        index = nearest_candidate(
            x_row_ptr, stride_xd, codes_ptr + one.to(tl.int64) * stride_ck, stride_cd, one,
            decided[:, None] & (one < size), centre_ptr, spread_ptr, d, ROWS, MEMBERS, CHANNELS,
        )  # fmt: skip
    index = tl.where(index == _NONE, -1, index)
    out = head * total + first + row
    look_up(
        x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, index.to(tl.int64), out, inside & ~left,
        indices_ptr, chosen_ptr, distance_ptr, d, CODES, ROWS, 4 * CHANNELS,
    )  # fmt: skip
    if CERTIFY:
        number = left.to(tl.int32)
        many = tl.sum(number, 0)
        if many > 0:
            # The order of the list depends on the programs' order; what becomes of a row does not.
            place = tl.atomic_add(count_ptr + head, many) + tl.cumsum(number, 0) - 1
            tl.store(listed_ptr + head * n + place, row, mask=left)
