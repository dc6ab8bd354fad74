"""The leaves that a tile of rows must search: equations (19) to (21) of kernels/nearest/README.md."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.nearest.triton.frame import Frame
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows
from quantizers.kernels.nearest.triton.pruned.coordinates import Placed
from quantizers.kernels.nearest.triton.pruned.limits import limits
from quantizers.kernels.nearest.triton.pruned.order import COORDINATES, FEW_CHANNELS, PARTS, axes_of
from quantizers.kernels.nearest.triton.search import Steps, load_columns, step_scores
from quantizers.kernels.nearest.triton.tiles import Bound, Layout, Tiles

SEEDS = 4  # rows of a tile whose leaves are scored for a first best code
LEAVES = 32  # tested at a time
_COORDINATES = tl.constexpr(COORDINATES)
_PARTS = tl.constexpr(PARTS)


def remaining_leaves(
    x: PackedRows,
    codes: PackedCodes,
    where: Frame,
    limit: Bound,
    cut: Layout,
    tiles: Tiles,
    boxes: Tensor,
    placed: Placed,
    row_order: Tensor,
    d: int,
) -> Steps:
    """Return the leaves that may contain the nearest code of a row of each tile, in ascending order.

    Args:
        row_order: [H, N] the order of the packed rows, by their parts of leaves.
    """
    heads, rows, _ = x.columns.shape
    row_tiles, leaves = rows // tiles.block_n, boxes.shape[-1]
    listed = torch.empty((heads, row_tiles, leaves), dtype=torch.int32, device=boxes.device)
    number = listed.new_empty((heads, row_tiles))
    _remaining[(row_tiles, heads)](
        *x,
        *codes,
        where.lengths,
        boxes,
        *placed,
        row_order,
        listed,
        number,
        placed.part.shape[1],
        rows,
        leaves,
        cut.width,
        limit.product,
        limit.square,
        USED=axes_of(d) + (d > FEW_CHANNELS),
        BIAS=not cut.bias_columns,
        RESIDENT=cut.resident,
        BLOCK_N=tiles.block_n,
        BLOCK_K=tiles.block_k,
        BLOCK_D=tiles.block_d,
        SEEDS=SEEDS,
        LEAVES=LEAVES,
        num_warps=tiles.warps,
        num_stages=1,  # few steps with products
        enable_fp_fusion=True,
    )
    return Steps(listed, number)


@triton.jit
def _outside(low, high, least, largest):
    """The squared difference from an interval to another, +inf to an empty one."""
    difference = tl.maximum(tl.maximum(least - high, low - largest), 0.0)
    return difference * difference


@triton.jit
def _near(
    coordinates_ptr, limit, least_ptr, largest_ptr, leaf, leaves, known, USED: tl.constexpr, ROWS: tl.constexpr,
    LEAVES: tl.constexpr,
):  # fmt: skip
    """Which leaves [LEAVES] are not too far from some row with a `limit` [ROWS]."""
    squares = tl.zeros([ROWS, LEAVES], tl.float32)
    for axis in tl.static_range(USED):
        value = tl.load(coordinates_ptr + axis, mask=limit >= 0, other=0.0)[:, None]
        least = tl.load(least_ptr + axis * leaves + leaf, mask=known, other=float("inf"))
        largest = tl.load(largest_ptr + axis * leaves + leaf, mask=known, other=float("-inf"))
        squares += _outside(value, value, least[None, :], largest[None, :])
    return tl.max((~(squares > limit[:, None])).to(tl.int32), 0) > 0


@launched
@triton.jit(do_not_specialize=["n", "rows", "leaves"])
def _remaining(
    x_columns_ptr,
    length_ptr,
    residual_ptr,
    factor_ptr,
    e_columns_ptr,
    e_half_ptr,
    lengths_ptr,
    boxes_ptr,
    coordinates_ptr,
    part_ptr,
    row_order_ptr,
    list_ptr,
    number_ptr,
    n,
    rows,
    leaves,
    width,
    product_error,
    square_error,
    USED: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SEEDS: tl.constexpr,
    LEAVES: tl.constexpr,
):
    """Score some leaves for a first best code of each row; list the leaves that may contain a nearer one."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    place = first + tl.arange(0, BLOCK_N)
    inside = place < n
    slot = head * rows + place
    factor = tl.load(factor_ptr + slot)
    x = load_columns(x_columns_ptr, slot, 0, BLOCK_D if RESIDENT else width, BLOCK_D)
    best = tl.full([BLOCK_N], float("inf"), tl.float32)
    row_order_ptr += head * n
    part_ptr += head * n
    scored = leaves  # the last leaf that was scored; rows are in the order of their leaves
    for seed in range(SEEDS):
        some = tl.minimum(first + (2 * seed + 1) * (BLOCK_N // (2 * SEEDS)), n - 1)
        leaf = tl.minimum(tl.load(part_ptr + tl.load(row_order_ptr + some)) // _PARTS, leaves - 1)
        if leaf != scored:
            code = (head * leaves + leaf) * BLOCK_K + tl.arange(0, BLOCK_K)
            scores = step_scores(
                x, factor, x_columns_ptr, e_columns_ptr, e_half_ptr, slot, code, width,
                BIAS, RESIDENT, BLOCK_N, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            best = tl.minimum(best, tl.min(scores, 1))
            scored = leaf
    limit = limits(
        best, tl.load(length_ptr + slot), tl.load(residual_ptr + slot), factor, lengths_ptr, head, heads,
        product_error, square_error,
    )  # fmt: skip
    row = tl.load(row_order_ptr + place, mask=inside, other=0)
    coordinates_ptr += (head * n + row) * _COORDINATES
    axes = tl.arange(0, _COORDINATES)
    valid = limit >= 0
    box = tl.load(coordinates_ptr[:, None] + axes[None, :], mask=valid[:, None], other=0.0)
    low = tl.min(tl.where(valid[:, None], box, float("inf")), 0)
    high = tl.max(tl.where(valid[:, None], box, float("-inf")), 0)
    largest_limit = tl.max(limit, 0)
    least_ptr = boxes_ptr + head * _COORDINATES * leaves
    largest_ptr = least_ptr + heads.to(tl.int64) * _COORDINATES * leaves
    tile = head * tl.num_programs(0) + tl.program_id(0)
    list_ptr += tile * leaves
    count = 0
    for start in range(0, leaves, LEAVES):
        leaf = start + tl.arange(0, LEAVES)
        known = leaf < leaves
        where = axes[:, None] * leaves + leaf[None, :]
        least = tl.load(least_ptr + where, mask=known[None, :], other=float("inf"))
        largest = tl.load(largest_ptr + where, mask=known[None, :], other=float("-inf"))
        far = tl.sum(_outside(low[:, None], high[:, None], least, largest), 0)
        kept = known & ~(far > largest_limit)
        if tl.max(kept.to(tl.int32), 0) > 0:
            kept = kept & _near(
                coordinates_ptr, limit, least_ptr, largest_ptr, leaf, leaves, known, USED, BLOCK_N, LEAVES
            )  # fmt: skip
            number = kept.to(tl.int32)
            tl.store(list_ptr + count + tl.cumsum(number, 0) - 1, leaf, mask=kept)
            count += tl.sum(number, 0)
    tl.store(number_ptr + tile, count)
