"""The smallest scores over packed rows and codes: equations (8) and (9) of kernels/nearest/README.md."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.pack import Packed
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.tiles import Tiles


class Partial(NamedTuple):
    """The results of each split of the codes, [splits, H, R] each."""

    best: Tensor  # float32, the smallest score
    second: Tensor  # float32, the second smallest
    lowest: Tensor  # int32, the lowest index of the smallest


def search(x: Packed, codes: Packed, tiles: Tiles, mode: Mode) -> Partial:
    """Return the smallest scores of the rows over each split of the codes."""
    heads, rows, width = x.high.shape
    blocks = codes.high.shape[1] // tiles.block_k
    share = triton.cdiv(blocks, tiles.splits)
    splits = triton.cdiv(blocks, share)
    best = x.factor.new_empty((splits, heads, rows))
    second, index = torch.empty_like(best), torch.empty_like(best, dtype=torch.int32)
    _search[(heads * (rows // tiles.block_n), splits)](
        x.high,
        x.low,
        x.factor,
        codes.high,
        codes.low,
        codes.half_squares,
        best,
        second,
        index,
        rows,
        blocks,
        share,
        width,
        EXACT=mode == "exact",
        RESIDENT=width == tiles.block_d,
        BLOCK_N=tiles.block_n,
        BLOCK_K=tiles.block_k,
        BLOCK_D=tiles.block_d,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,
    )
    return Partial(best, second, index)


@triton.jit
def _load(base_ptr, first, channel, width, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """[ROWS, CHANNELS] from row `first` and `channel` on."""
    offsets = tl.arange(0, ROWS)[:, None] * width + tl.arange(0, CHANNELS)[None, :]
    return tl.load(base_ptr + (first * width + channel) + offsets)


@triton.jit
def _multiply(x_high, x_low, e_high, e_low, sums, EXACT: tl.constexpr):
    """sums − x·e, for rows packed as −x; with split halves, the small products first, while the sums are small."""
    if EXACT:
        sums = tl.dot(x_low, e_high.T, sums, input_precision="tf32")
        sums = tl.dot(x_high, e_low.T, sums, input_precision="tf32")
    return tl.dot(x_high, e_high.T, sums, input_precision="tf32")


@triton.jit(do_not_specialize=["rows", "blocks", "share"])
def _search(
    x_high_ptr,
    x_low_ptr,
    factor_ptr,
    e_high_ptr,
    e_low_ptr,
    half_ptr,
    best_ptr,
    second_ptr,
    index_ptr,
    rows,
    blocks,
    share,
    width,
    EXACT: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores (8) of a tile of rows against one split of the codes, without an N × K matrix.

    Each column of a step has its own running minima over the steps; the columns are compared at the end.
    """
    split = tl.program_id(1)
    head = (tl.program_id(0) // (rows // BLOCK_N)).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * BLOCK_N  # the first, over all heads
    rows_in_tile, columns = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    factor = tl.load(factor_ptr + row + rows_in_tile)
    best = tl.full([BLOCK_N, BLOCK_K], float("inf"), tl.float32)
    second = best
    step = tl.zeros([BLOCK_N, BLOCK_K], tl.int32)
    if RESIDENT:
        x_high = _load(x_high_ptr, row, 0, BLOCK_D, BLOCK_N, BLOCK_D)
        x_low = _load(x_low_ptr, row, 0, BLOCK_D, BLOCK_N, BLOCK_D) if EXACT else x_high
    first = split * share
    for block in range(first, tl.minimum(first + share, blocks)):
        code = (head * blocks + block) * BLOCK_K
        sums = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        if RESIDENT:
            e_high = _load(e_high_ptr, code, 0, BLOCK_D, BLOCK_K, BLOCK_D)
            e_low = _load(e_low_ptr, code, 0, BLOCK_D, BLOCK_K, BLOCK_D) if EXACT else e_high
            sums = _multiply(x_high, x_low, e_high, e_low, sums, EXACT)
        else:
            for channel in range(0, width, BLOCK_D):
                x_high = _load(x_high_ptr, row, channel, width, BLOCK_N, BLOCK_D)
                x_low = _load(x_low_ptr, row, channel, width, BLOCK_N, BLOCK_D) if EXACT else x_high
                e_high = _load(e_high_ptr, code, channel, width, BLOCK_K, BLOCK_D)
                e_low = _load(e_low_ptr, code, channel, width, BLOCK_K, BLOCK_D) if EXACT else e_high
                sums = _multiply(x_high, x_low, e_high, e_low, sums, EXACT)
        scores = factor[:, None] * tl.load(half_ptr + code + columns)[None, :] + sums
        if EXACT:
            second = tl.minimum(second, tl.maximum(best, scores))
        step = tl.where(scores < best, block, step)
        best = tl.minimum(best, scores)
    smallest = tl.min(best, 1)
    index = step * BLOCK_K + columns[None, :]
    index = tl.where(best == smallest[:, None], index, 2147483647)
    lowest = tl.min(index, 1)
    out = split * tl.num_programs(0).to(tl.int64) * BLOCK_N + row + rows_in_tile
    tl.store(best_ptr + out, smallest)
    tl.store(index_ptr + out, lowest)
    if EXACT:
        tl.store(second_ptr + out, tl.min(tl.where(index == lowest[:, None], second, best), 1))
