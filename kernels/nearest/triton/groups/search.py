"""The smallest scores of groups of codes: of each row the two groups with the smallest, and the third score.

In the result of a matrix unit, a thread holds, of a row, codes of one class (k mod 8) // 2. The codes of a class
within a step are a group, so that its minimum needs no exchange between threads.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.groups.minima import combine_columns, empty_state, insert
from quantizers.kernels.nearest.triton.groups.pack import PackedCodes, PackedRows
from quantizers.kernels.nearest.triton.groups.tiles import CLASSES, Layout, Tiles

_CLASSES = tl.constexpr(CLASSES)


class Minima(NamedTuple):
    """The results of each split of the codes for H·R packed rows. Group CLASSES·b + c has class c of step b."""

    scores: Tensor  # [3, splits, H·R] float32: the smallest scores of the two best groups, and of all the others
    groups: Tensor  # [2, splits, H·R] int32: the two best groups


def search(x: PackedRows, codes: PackedCodes, layout: Layout, tiles: Tiles) -> Minima:
    """Return the best groups of the rows over each split of the codes."""
    heads, rows, _ = x.columns.shape
    steps = codes.columns.shape[1] // tiles.block_k
    share = triton.cdiv(steps, tiles.splits)
    splits = triton.cdiv(steps, share)
    scores = x.factor.new_empty((3, splits, heads * rows))
    groups = torch.empty((2, splits, heads * rows), dtype=torch.int32, device=scores.device)
    row_tiles = rows // tiles.block_n
    _search[(row_tiles, heads, splits)](
        x.columns,
        x.factor,
        codes.columns,
        codes.half_squares,
        scores,
        groups,
        rows,
        steps,
        share,
        layout.width,
        PRODUCTS=layout.products,
        BIAS=not layout.bias_columns,
        RESIDENT=layout.resident,
        BLOCK_N=tiles.block_n,
        BLOCK_K=tiles.block_k,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,
    )
    return Minima(scores, groups)


@triton.jit
def _load(base_ptr, rows, column, stride, BLOCK_D: tl.constexpr):
    columns = column + tl.arange(0, BLOCK_D)
    return tl.load(base_ptr + rows[:, None] * stride + columns[None, :])


@triton.jit
def _multiply(x_low, x_high, e_low, e_high, sums, PRODUCTS: tl.constexpr):
    """sums − x·e, for rows packed as −x; of halves, the small products first, while the sums are small."""
    if PRODUCTS == 3:
        sums = tl.dot(x_low, e_high.T, sums, input_precision="tf32")
        sums = tl.dot(x_high, e_low.T, sums, input_precision="tf32")
    return tl.dot(x_high, e_high.T, sums, input_precision="tf32")


@triton.jit(do_not_specialize=["rows", "steps", "share"])
def _search(
    x_ptr,
    factor_ptr,
    e_ptr,
    half_ptr,
    score_ptr,
    group_ptr,
    rows,
    steps,
    share,
    width,
    PRODUCTS: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores (8) of a tile of rows against one split of the codes, without an N × K matrix."""
    head, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N) + head * rows
    columns = tl.arange(0, BLOCK_K)
    HALVES: tl.constexpr = 2 if PRODUCTS == 3 else 1
    high = (HALVES - 1) * width  # the first column of the high halves
    stride = HALVES * width
    if BIAS:
        factor = tl.load(factor_ptr + row)
    if RESIDENT:
        x_high = _load(x_ptr, row, (HALVES - 1) * BLOCK_D, HALVES * BLOCK_D, BLOCK_D)
        x_low = _load(x_ptr, row, 0, HALVES * BLOCK_D, BLOCK_D) if PRODUCTS == 3 else x_high
    best, second, third, best_group, second_group = empty_state(BLOCK_N, _CLASSES)
    classes = tl.arange(0, _CLASSES)
    first = split * share
    for step in range(first, tl.minimum(first + share, steps)):
        code = (head * steps + step) * BLOCK_K + columns
        sums = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        if RESIDENT:
            e_high = _load(e_ptr, code, (HALVES - 1) * BLOCK_D, HALVES * BLOCK_D, BLOCK_D)
            e_low = _load(e_ptr, code, 0, HALVES * BLOCK_D, BLOCK_D) if PRODUCTS == 3 else e_high
            sums = _multiply(x_low, x_high, e_low, e_high, sums, PRODUCTS)
        else:
            for column in range(0, width, BLOCK_D):
                x_high = _load(x_ptr, row, high + column, stride, BLOCK_D)
                x_low = _load(x_ptr, row, column, stride, BLOCK_D) if PRODUCTS == 3 else x_high
                e_high = _load(e_ptr, code, high + column, stride, BLOCK_D)
                e_low = _load(e_ptr, code, column, stride, BLOCK_D) if PRODUCTS == 3 else e_high
                sums = _multiply(x_low, x_high, e_low, e_high, sums, PRODUCTS)
        if BIAS:
            sums = factor[:, None] * tl.load(half_ptr + code)[None, :] + sums
        smallest = tl.min(tl.min(tl.reshape(sums, [BLOCK_N, BLOCK_K // 8, _CLASSES, 2]), 3), 1)
        # The label is the step, the same for all classes; classes are told apart after the loop.
        best, second, third, best_group, second_group = insert(
            best, second, third, best_group, second_group, smallest, step
        )
    best_group = best_group * _CLASSES + classes[None, :]
    second_group = second_group * _CLASSES + classes[None, :]
    best_1, second_1, third_1, group_1, group_2 = combine_columns(best, second, third, best_group, second_group)
    total = tl.num_programs(1).to(tl.int64) * rows
    splits = tl.num_programs(2)
    out = split * total + row
    tl.store(score_ptr + out, best_1)
    tl.store(score_ptr + splits * total + out, second_1)
    tl.store(score_ptr + 2 * splits * total + out, third_1)
    tl.store(group_ptr + out, group_1)
    tl.store(group_ptr + splits * total + out, group_2)
