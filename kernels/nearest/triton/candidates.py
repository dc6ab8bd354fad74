"""The nearest of some codes of each row, by their scores and, where these are too close, by their distances."""

import triton
import triton.language as tl

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.nearest.triton.lookup import distance_limit

_NONE = tl.constexpr(2**31 - 1)  # instead of an index


@triton.jit
def packed_scores(
    x_ptr,
    factor,
    e_ptr,
    half_ptr,
    code,
    possible,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Scores (8) [ROWS, CODES] of packed rows and codes, in float32; +inf where `possible` [ROWS] is false.

    Args:
        x_ptr: [ROWS] pointers to the rows' columns. factor: [ROWS] t.
        e_ptr, half_ptr: pointers to the columns and half squares of the head's codes.
        code: [ROWS, CODES] int32 indices, of packed codes that exist.
        BIAS: ½‖e‖² is not among the columns.
    """
    sums = tl.zeros([ROWS, CODES, CHUNK], tl.float32)
    rows_ptr = e_ptr + code.to(tl.int64) * COLUMNS
    for start in range(0, COLUMNS, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        x = tl.load(x_ptr[:, None] + columns[None, :], mask=possible[:, None], other=0.0).to(tl.float32)
        place = rows_ptr[:, :, None] + columns[None, None, :]
        e = tl.load(place, mask=possible[:, None, None], other=0.0).to(tl.float32)
        sums += x[:, None, :] * e
    scores = tl.sum(sums, 2)
    if BIAS:
        scores += factor[:, None] * tl.load(half_ptr + code, mask=possible[:, None], other=0.0)
    return tl.where(possible[:, None], scores, float("inf"))


@triton.jit
def nearest_candidate(
    x_ptr,
    stride_xd,
    codes_ptr,
    stride_ck,
    stride_cd,
    code,
    near,
    d,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The index [ROWS] of the nearest candidate, the lowest of those equal within (12); _NONE without any.

    If no row has two candidates, nothing is computed. Otherwise one candidate of each such row after the other is
    compared by its distance, in float64.

    Args:
        x_ptr: [ROWS] pointers to the vectors. codes_ptr: pointer to the head's codes.
        code, near: [ROWS, CODES] int32 indices, and which of them are candidates.
    """
    lowest = tl.min(tl.where(near, code, _NONE), 1)
    several = tl.sum(near.to(tl.int32), 1) > 1
    waiting = near & several[:, None]
    if tl.max(several.to(tl.int32), 0) > 0:
        squares = tl.full(code.shape, float("inf"), tl.float64)
        while tl.max(tl.max(waiting.to(tl.int32), 1), 0) > 0:
            index = tl.min(tl.where(waiting, code, _NONE), 1)
            some = index < _NONE
            distance = squared_distance(
                x_ptr, stride_xd, codes_ptr + index.to(tl.int64) * stride_ck, stride_cd, some, d, ROWS, CHANNELS
            )
            this = waiting & (code == index[:, None])
            squares = tl.where(this, distance[:, None], squares)
            waiting = waiting & (code != index[:, None])
        close = squares <= distance_limit(tl.min(squares, 1), d)[:, None]
        lowest = tl.where(several, tl.min(tl.where(near & close, code, _NONE), 1), lowest)
    return lowest


@triton.jit
def squared_distance(
    x_ptr, stride_xd, code_ptr, stride_cd, mask, d, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """(4), squared, of rows and codes at pointers [ROWS], in float64; zero outside the mask."""
    squares = tl.zeros([ROWS, CHANNELS], tl.float64)
    for channel in range(0, d, CHANNELS):
        x = load_tile(x_ptr, mask, channel, d, stride_xd, CHANNELS)
        difference = x - load_tile(code_ptr, mask, channel, d, stride_cd, CHANNELS)
        squares += difference * difference
    return tl.sum(squares, 1)
