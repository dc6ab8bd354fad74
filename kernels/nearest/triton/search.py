"""The smallest scores over packed rows and codes, and the certificate of the smallest.

Equations (20) to (23) of kernels/nearest/README.md.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.pack import Packed
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.tiles import Tiles

UNDECIDED = 2**31 - 1  # instead of an index: left to the rescan
_UNDECIDED = tl.constexpr(UNDECIDED)
_ROWS = 128  # per program of the deciding kernel
_INFINITY_BITS = tl.constexpr(0x7FF0000000000000)  # +inf of float64
# (22): u = 2⁻²⁴. Splitting costs 3·2⁻²², centring two roundings, the last subtraction one.
_ROUNDOFF = tl.constexpr(2.0**-24)
_SPLIT = tl.constexpr(15.0)
# The model of a sum inside a matrix unit: every step of 8 products truncates nine terms to 23 bits of the
# largest, which costs 9/8 · 2u per channel.
_ACCUMULATION = tl.constexpr(2.25)
# Second order, underflow and the smallest factor, some D · 2⁻¹⁰⁰. Due to the scaling, a bound is never below 2⁻²⁴.
_REST = tl.constexpr(1.01)


class Partial(NamedTuple):
    """The results of each split of the codes, [splits, H, R] each."""

    best: Tensor  # float32, the smallest score
    second: Tensor  # float32, the second smallest
    lowest: Tensor  # int32, the lowest index of the smallest


class Decision(NamedTuple):
    """The merged results, [H, R] each."""

    indices: Tensor  # int32: an index, −1 without one, or UNDECIDED
    undecided: Tensor  # int32, 1 where UNDECIDED
    smallest: Tensor  # int64, the bits of float64 +inf, for the rescan


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


def decide(partial: Partial, x: Packed, codes: Packed, rows: int, *, resident: bool, certify: bool) -> Decision:
    """Merge the splits. Leaves the first `rows` rows whose second score is not safely larger (22) to the
    rescan."""
    splits, heads, padded = partial.best.shape
    indices = partial.lowest.new_empty((heads, rows))
    undecided, smallest = torch.empty_like(indices), torch.empty_like(indices, dtype=torch.int64)
    size = codes.half_squares.shape[1]
    _decide[(heads * triton.cdiv(rows, _ROWS),)](
        *partial,
        x.half_squares,
        x.factor,
        codes.half_squares,
        indices,
        undecided,
        smallest,
        heads,
        rows,
        padded,
        size,
        splits,
        x.high.shape[2],
        SUMS=1 if resident else 3,
        CERTIFY=certify,
        ROWS=_ROWS,
        enable_fp_fusion=True,
    )
    return Decision(indices, undecided, smallest)


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
    """Scores (20) of a tile of rows against one split of the codes, without an N × K matrix.

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


@triton.jit
def _largest_norm(half_ptr, size, COUNT: tl.constexpr):
    """The largest finite ‖e‖ from ½‖e‖² [size]."""
    largest = tl.zeros([COUNT], tl.float32)
    for start in range(0, size, COUNT):
        place = start + tl.arange(0, COUNT)
        half = tl.load(half_ptr + place, mask=place < size, other=0.0)
        largest = tl.maximum(largest, tl.where(half < float("inf"), half, 0.0))
    return tl.sqrt(2 * tl.max(largest, 0))


@triton.jit(do_not_specialize=["heads", "rows", "padded", "size", "splits"])
def _decide(
    best_ptr,
    second_ptr,
    index_ptr,
    x_half_ptr,
    factor_ptr,
    e_half_ptr,
    indices_ptr,
    undecided_ptr,
    smallest_ptr,
    heads,
    rows,
    padded,
    size,
    splits,
    width,
    SUMS: tl.constexpr,
    CERTIFY: tl.constexpr,
    ROWS: tl.constexpr,
):
    blocks = tl.cdiv(rows, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    best = tl.full([ROWS], float("inf"), tl.float32)
    second = best
    index = tl.full([ROWS], -1, tl.int32)
    for split in range(splits):
        place = (split * heads.to(tl.int64) + head) * padded + row
        score = tl.load(best_ptr + place, mask=inside, other=float("inf"))
        if CERTIFY:
            runner_up = tl.load(second_ptr + place, mask=inside, other=float("inf"))
            second = tl.minimum(tl.minimum(second, runner_up), tl.maximum(best, score))
        index = tl.where(score < best, tl.load(index_ptr + place, mask=inside, other=-1), index)
        best = tl.minimum(best, score)
    x_half = tl.load(x_half_ptr + head * padded + row, mask=inside, other=float("inf"))
    index = tl.where(x_half < float("inf"), index, -1)
    out = head * rows + row
    if CERTIFY:
        factor = tl.load(factor_ptr + head * padded + row, mask=inside, other=1.0)
        radius = _largest_norm(e_half_ptr + head * size, size, 1024)
        products = (
            (_SPLIT + _ACCUMULATION * SUMS * width) * tl.sqrt(2 * tl.where(index >= 0, x_half, 0.0)) * radius
        )
        bound = _REST * _ROUNDOFF * (products + factor * radius * radius)
        undecided = (index >= 0) & ~(second - tl.where(index >= 0, best, 0.0) > 2 * bound)
        index = tl.where(undecided, _UNDECIDED, index)
        tl.store(undecided_ptr + out, undecided.to(tl.int32), mask=inside)
        tl.store(smallest_ptr + out, tl.full([ROWS], _INFINITY_BITS, tl.int64), mask=inside)
    tl.store(indices_ptr + out, index, mask=inside)
