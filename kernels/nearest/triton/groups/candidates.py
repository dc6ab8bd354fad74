"""The nearest of some codes of each row, in float64: equations (1) to (5) of the nearest code, for these codes."""

import triton
import triton.language as tl

from quantizers.kernels.common.constants import EXTRA_ROUNDINGS, ROUNDOFF_FLOAT64
from quantizers.kernels.nearest.triton.lookup import distance_limit

_NONE = tl.constexpr(2**31 - 1)  # instead of an index
_ROUNDOFF = tl.constexpr(ROUNDOFF_FLOAT64)
_EXTRA_ROUNDINGS = tl.constexpr(EXTRA_ROUNDINGS)


@triton.jit
def _load(rows_ptr, channels, mask, stride_d):
    """Float64 values of channels [C] of vectors at pointers of any shape, [..., C]."""
    return tl.load(rows_ptr + channels.to(tl.int64) * stride_d, mask=mask, other=0).to(tl.float64)


@triton.jit
def score_error(square, spread_square, d):
    """E of (3) for rows with ‖x − c‖² = square [R], and the length of the spread, which is no smaller than R."""
    length = tl.sqrt(spread_square)
    return (d + _EXTRA_ROUNDINGS) * (_ROUNDOFF * (tl.sqrt(square) * length + 0.5 * spread_square))


@triton.jit
def nearest_candidate(
    x_ptr,
    stride_xd,
    codes_ptr,
    stride_cd,
    code,
    possible,
    centre_ptr,
    spread_ptr,
    d,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The index [ROWS] of the nearest candidate, the lowest of equally near ones; _NONE where there is none.

    Args:
        x_ptr: [ROWS] pointers to the rows.
        codes_ptr: [ROWS, CODES] pointers to the candidates.
        code: [ROWS, CODES] int32 their indices.
        possible: [ROWS, CODES] whether there is a candidate. One that is not finite is never chosen.
        centre_ptr, spread_ptr: to those of the head.
    """
    sums = tl.zeros([ROWS, CODES, CHANNELS], tl.float64)
    squares = tl.zeros([ROWS, CHANNELS], tl.float64)
    spread_squares = tl.zeros([CHANNELS], tl.float64)
    used = tl.max(possible.to(tl.int32), 1) > 0
    for start in range(0, d, CHANNELS):
        channels = start + tl.arange(0, CHANNELS)
        here = channels < d
        centre = tl.load(centre_ptr + channels, mask=here, other=0.0)
        spread = tl.load(spread_ptr + channels, mask=here, other=0.0)
        x = _load(x_ptr[:, None], channels[None, :], used[:, None] & here[None, :], stride_xd) - centre[None, :]
        mask = possible[:, :, None] & here[None, None, :]
        e = _load(codes_ptr[:, :, None], channels[None, None, :], mask, stride_cd) - centre[None, None, :]
        # ½‖e‖² − x·e in one sum, whose terms have the errors of both.
        sums += e * (0.5 * e - x[:, None, :])
        squares += x * x
        spread_squares += spread * spread
    scores = tl.sum(sums, 2)
    error = score_error(tl.sum(squares, 1), tl.sum(spread_squares, 0), d)
    possible = possible & (scores < float("inf"))
    best = tl.min(tl.where(possible, scores, float("inf")), 1)
    near = possible & (scores <= (best + 2 * error)[:, None])
    if tl.max(tl.sum(near.to(tl.int32), 1), 0) > 1:
        sums = tl.zeros([ROWS, CODES, CHANNELS], tl.float64)
        for start in range(0, d, CHANNELS):
            channels = start + tl.arange(0, CHANNELS)
            here = channels < d
            x = _load(x_ptr[:, None], channels[None, :], used[:, None] & here[None, :], stride_xd)
            mask = near[:, :, None] & here[None, None, :]
            difference = x[:, None, :] - _load(codes_ptr[:, :, None], channels[None, None, :], mask, stride_cd)
            sums += difference * difference
        near = near & within_rounding(tl.where(near, tl.sum(sums, 2), float("inf")), d)
    return tl.min(tl.where(near, code, _NONE), 1)


@triton.jit
def within_rounding(squares, d):
    """Whether squared distances [R, C] are within (5) of the smallest of their row."""
    return squares <= distance_limit(tl.min(squares, 1), d)[:, None]
