"""The smallest scores of groups of codes: of each row the three groups with the smallest, and the fourth score.

In the result of a matrix unit, a thread holds, of a row, codes of one class (k mod 8) // 2. The codes of a class
within a step are a group, so that its minimum needs no exchange between threads.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.nearest.triton.minima import combine_columns, empty_state, insert
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows
from quantizers.kernels.nearest.triton.tiles import CLASSES, Layout, Tiles

_CLASSES = tl.constexpr(CLASSES)


class Minima(NamedTuple):
    """The results of each split of the codes for H·R packed rows. Group CLASSES·b + c has class c of step b."""

    scores: Tensor  # [4, splits, H·R] float32: the smallest scores of the three best groups, and of all the others
    groups: Tensor  # [3, splits, H·R] int32: the three best groups


class Steps(NamedTuple):
    """The steps that each tile of rows searches."""

    listed: Tensor  # [H, R / block_n, steps] int32: the steps, in the order of the search
    number: Tensor  # [H, R / block_n] int32: how many


def search(x: PackedRows, codes: PackedCodes, layout: Layout, tiles: Tiles, some: Steps | None = None) -> Minima:
    """Return the best groups of the rows over each split of the codes.

    Args:
        some: the steps of each tile of rows, which splits share; None: all of them.
    """
    heads, rows, _ = x.columns.shape
    steps = codes.columns.shape[1] // tiles.block_k
    share = triton.cdiv(steps, tiles.splits)
    splits = triton.cdiv(steps, share)
    scores = x.factor.new_empty((4, splits, heads * rows))
    groups = torch.empty((3, splits, heads * rows), dtype=torch.int32, device=scores.device)
    row_tiles = rows // tiles.block_n
    _search[(row_tiles, heads, splits)](
        x.columns,
        x.factor,
        codes.columns,
        codes.half_squares,
        scores,
        groups,
        *(some or (None, None)),
        rows,
        steps,
        share,
        layout.width,
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
def load_columns(base_ptr, rows, column, stride, BLOCK_D: tl.constexpr):
    """The columns from `column` on of some packed rows or codes."""
    columns = column + tl.arange(0, BLOCK_D)
    return tl.load(base_ptr + rows[:, None] * stride + columns[None, :])


@triton.jit
def step_scores(
    x,
    factor,
    x_ptr,
    e_ptr,
    half_ptr,
    row,
    code,
    width,
    BIAS: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores (8) [BLOCK_N, BLOCK_K] of packed rows and codes.

    Args:
        x: the rows' columns, which are read from `x_ptr` step by step unless RESIDENT.
        factor: [BLOCK_N] t, which counts if BIAS: ½‖e‖² is not among the columns.
    """
    sums = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    if RESIDENT:
        e = load_columns(e_ptr, code, 0, BLOCK_D, BLOCK_D)
        sums = tl.dot(x, e.T, sums)
    else:
        for column in range(0, width, BLOCK_D):
            part = load_columns(x_ptr, row, column, width, BLOCK_D)
            e = load_columns(e_ptr, code, column, width, BLOCK_D)
            sums = tl.dot(part, e.T, sums)
    if BIAS:
        sums = factor[:, None] * tl.load(half_ptr + code)[None, :] + sums
    return sums


@launched
@triton.jit(do_not_specialize=["rows", "steps", "share"])
def _search(
    x_ptr,
    factor_ptr,
    e_ptr,
    half_ptr,
    score_ptr,
    group_ptr,
    list_ptr,
    number_ptr,
    rows,
    steps,
    share,
    width,
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
    factor = tl.load(factor_ptr + row)
    x = load_columns(x_ptr, row, 0, BLOCK_D if RESIDENT else width, BLOCK_D)
    best, second, third, fourth, group_1, group_2, group_3 = empty_state(BLOCK_N, _CLASSES)
    classes = tl.arange(0, _CLASSES)
    count = steps
    if list_ptr is not None:
        tile = head * tl.num_programs(0) + tl.program_id(0)
        list_ptr += tile * steps
        count = tl.load(number_ptr + tile)
        share = tl.cdiv(count, tl.num_programs(2))
    first = split * share
    for place in range(first, tl.minimum(first + share, count)):
        step = place
        if list_ptr is not None:
            step = tl.load(list_ptr + place)
        code = (head * steps + step) * BLOCK_K + columns
        sums = step_scores(
            x, factor, x_ptr, e_ptr, half_ptr, row, code, width, BIAS, RESIDENT, BLOCK_N, BLOCK_K, BLOCK_D
        )  # fmt: skip
        smallest = tl.min(tl.min(tl.reshape(sums, [BLOCK_N, BLOCK_K // 8, _CLASSES, 2]), 3), 1)
        # The label is the step, the same for all classes; classes are told apart after the loop.
        best, second, third, fourth, group_1, group_2, group_3 = insert(
            best, second, third, fourth, group_1, group_2, group_3, smallest, step
        )
    best, second, third, fourth, group_1, group_2, group_3 = combine_columns(
        best,
        second,
        third,
        fourth,
        group_1 * _CLASSES + classes[None, :],
        group_2 * _CLASSES + classes[None, :],
        group_3 * _CLASSES + classes[None, :],
    )
    total = tl.num_programs(1).to(tl.int64) * rows
    rank = tl.num_programs(2) * total  # from the results of one rank to those of the next
    out = split * total + row
    tl.store(score_ptr + out, best)
    tl.store(score_ptr + rank + out, second)
    tl.store(score_ptr + 2 * rank + out, third)
    tl.store(score_ptr + 3 * rank + out, fourth)
    tl.store(group_ptr + out, group_1)
    tl.store(group_ptr + rank + out, group_2)
    tl.store(group_ptr + 2 * rank + out, group_3)
