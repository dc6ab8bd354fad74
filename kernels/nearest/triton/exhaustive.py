"""The nearest code of listed rows among all codes, in float64: equations (1) to (5) on matrix units.

Only the device knows which rows, and how many: a fixed number of programs shares them. If there are fewer groups
of rows than programs, the programs also share the codes. One kernel scores; another merges the shares, and
compares distances where the scores of several codes are too close, (3).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.constants import EXTRA_ROUNDINGS, ROUNDOFF_FLOAT64
from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.frame import Frame
from quantizers.kernels.nearest.triton.lookup import Found, distance_limit, look_up

ROWS = 32  # per task
CODES = 64  # per step
CHANNELS = 16  # per product
WARPS = 8
SHARES = 16  # merged at a time
PROGRAMS_PER_MULTIPROCESSOR = 4
_NONE = tl.constexpr(2**31 - 1)  # instead of an index
_ROUNDOFF = tl.constexpr(ROUNDOFF_FLOAT64)
_EXTRA_ROUNDINGS = tl.constexpr(EXTRA_ROUNDINGS)


class Rows(NamedTuple):
    """Some rows of each head."""

    listed: Tensor  # [H, N] int64: their numbers within the head, in any order
    number: Tensor  # [H] int32: how many


def every_row(x: Tensor) -> Rows:
    """Return all rows of [H, N, D]."""
    heads, n, _ = x.shape
    listed = torch.arange(n, device=x.device).expand(heads, n).contiguous()
    return Rows(listed, torch.full((heads,), n, dtype=torch.int32, device=x.device))


def no_rows(x: Tensor) -> Rows:
    """Return an empty list for rows of [H, N, D], whose number is not yet set."""
    listed = x.new_empty(x.shape[:2], dtype=torch.int64)
    return Rows(listed, x.new_empty((len(x),), dtype=torch.int32))


def exhaustive(x: Tensor, codebook: Tensor, where: Frame, rows: Rows, found: Found, first: int = 0) -> None:
    """Write the results of the listed rows of [H, N, D], for codes [H, K, D] with the frame `where`.

    A row that is not finite gets the index −1.

    Args:
        first: position of the first row of `x` in `found`.
    """
    heads, n, d = x.shape
    size = codebook.shape[1]
    # 16-bit values are widened here: Triton cannot compile float64 products of values loaded as 16 bits.
    dtype = compute_dtype(x, codebook)
    x, codebook = x.to(dtype), codebook.to(dtype)
    programs = triton.cdiv(PROGRAMS_PER_MULTIPROCESSOR * device_properties(x.device).multiprocessors, heads)
    tasks = max(programs, triton.cdiv(n, ROWS))
    scores = x.new_empty((2, heads, tasks, ROWS), dtype=torch.float64)
    nearest = torch.empty((heads, tasks, ROWS), dtype=torch.int32, device=x.device)
    inputs = (x, *x.stride(), codebook, *codebook.stride(), where.centre, where.spread, *rows, scores, nearest)
    _score[(programs, heads)](
        *inputs,
        n,
        size,
        d,
        tasks,
        ROWS=ROWS,
        CODES=CODES,
        CHANNELS=CHANNELS,
        num_warps=WARPS,
        num_stages=2,
        enable_fp_fusion=True,
    )
    _finish[(programs, heads)](
        *inputs,
        *found,
        n,
        size,
        d,
        tasks,
        first,
        found.indices.shape[1],
        STORE_CODES=found.codes.dim() == 3,
        ROWS=ROWS,
        CODES=CODES,
        CHANNELS=CHANNELS,
        SHARES=SHARES,
        num_warps=WARPS,
        num_stages=1,  # its loops would need more registers to run ahead
        enable_fp_fusion=True,
    )


@triton.jit
def _partition(count, size, ROWS: tl.constexpr, CODES: tl.constexpr):
    """(groups of rows, shares of the codes, steps in a share, steps) of `count` rows of a head."""
    groups = tl.cdiv(count, ROWS)
    steps = tl.cdiv(size, CODES)
    shares = tl.minimum(tl.maximum(tl.num_programs(0) // tl.maximum(groups, 1), 1), steps)
    return groups, shares, tl.cdiv(steps, shares), steps


@triton.jit
def _scores(
    x_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, centre_ptr, mask, code, size, d,
    ROWS: tl.constexpr, CODES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Scores (1) [ROWS, CODES] float64; +inf where there is none. x_ptr: [ROWS] pointers to rows."""
    product = tl.zeros([ROWS, CODES], tl.float64)
    squares = tl.zeros([CHANNELS, CODES], tl.float64)
    for start in range(0, d, CHANNELS):
        channels = start + tl.arange(0, CHANNELS)
        here = channels < d
        step = channels.to(tl.int64)
        centre = tl.load(centre_ptr + channels, mask=here, other=0.0)
        x = tl.load(x_ptr[:, None] + step[None, :] * stride_xd, mask=mask[:, None] & here[None, :], other=0)
        place = codes_ptr + code.to(tl.int64)[None, :] * stride_ck + step[:, None] * stride_cd
        e = tl.load(place, mask=(code < size)[None, :] & here[:, None], other=0).to(tl.float64) - centre[:, None]
        x = x.to(tl.float64) - centre[None, :]
        product = tl.dot(x, e, product, input_precision="ieee", out_dtype=tl.float64)
        squares += e * e
    scores = 0.5 * tl.sum(squares, 0)[None, :] - product
    return tl.where((scores < float("inf")) & mask[:, None] & (code < size)[None, :], scores, float("inf"))


@launched
@triton.jit(
    do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "n", "size", "tasks"],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _score(
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
    score_ptr,
    nearest_ptr,
    n,
    size,
    d,
    tasks,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Of each row and share of the codes: the smallest score, its lowest index and the second smallest score."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    count = tl.load(count_ptr + head).to(tl.int32)
    groups, shares, share, steps = _partition(count, size, ROWS, CODES)
    codes_ptr += head * stride_ch
    columns = tl.arange(0, CODES)
    for task in range(tl.program_id(0), groups * shares, tl.num_programs(0)):
        rank = (task // shares) * ROWS + tl.arange(0, ROWS)
        listed = rank < count
        row = tl.load(listed_ptr + head * n + rank, mask=listed, other=0)
        x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
        best = tl.full([ROWS, CODES], float("inf"), tl.float64)
        second = best
        best_step = tl.zeros([ROWS, CODES], tl.int32)
        first = (task % shares) * share
        for step in range(first, tl.minimum(first + share, steps)):
            scores = _scores(
                x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, centre_ptr + head * d, listed,
                step * CODES + columns, size, d, ROWS, CODES, CHANNELS,
            )  # fmt: skip
            second = tl.minimum(second, tl.maximum(best, scores))
            best_step = tl.where(scores < best, step, best_step)
            best = tl.minimum(best, scores)
        smallest, index, second_smallest = _smallest_two(best, second, best_step * CODES + columns[None, :])
        out = (head * tasks + task) * ROWS + tl.arange(0, ROWS)
        tl.store(score_ptr + out, smallest)
        tl.store(score_ptr + heads.to(tl.int64) * tasks * ROWS + out, second_smallest)
        tl.store(nearest_ptr + out, index)


@triton.jit
def _smallest_two(best, second, index):
    """Of each row of [R, C]: the smallest of `best`, its lowest index, and the second smallest of all."""
    smallest = tl.min(best, 1)
    index = tl.where(best == smallest[:, None], index, _NONE)
    lowest = tl.min(index, 1)
    return smallest, lowest, tl.min(tl.where(index == lowest[:, None], second, best), 1)


@triton.jit
def _score_error(square, spread_square, d):
    """E of (3) for rows with ‖x − c‖² = square [R], and the length of the spread, which is no smaller than R."""
    length = tl.sqrt(spread_square)
    return (d + _EXTRA_ROUNDINGS) * (_ROUNDOFF * (tl.sqrt(square) * length + 0.5 * spread_square))


@triton.jit
def _error(x_ptr, stride_xd, centre_ptr, spread_ptr, mask, d, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """E of (3) for each row."""
    squares = tl.zeros([ROWS], tl.float64)
    spread_squares = tl.zeros([CHANNELS], tl.float64)
    for start in range(0, d, CHANNELS):
        channels = start + tl.arange(0, CHANNELS)
        here = channels < d
        x = load_tile(x_ptr, mask, start, d, stride_xd, CHANNELS)
        x -= tl.load(centre_ptr + channels, mask=here, other=0.0)[None, :]
        squares += tl.sum(x * x, 1)
        spread = tl.load(spread_ptr + channels, mask=here, other=0.0)
        spread_squares += spread * spread
    return _score_error(squares, tl.sum(spread_squares, 0), d)


@triton.jit
def _squared_distances(
    x_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, near, code, d, ROWS: tl.constexpr, CODES: tl.constexpr
):  # fmt: skip
    """(4), squared [ROWS, CODES], where `near`; +inf elsewhere."""
    squares = tl.zeros([ROWS, CODES], tl.float64)
    x_mask = tl.max(near.to(tl.int32), 1) > 0
    mask = tl.max(near.to(tl.int32), 0) > 0
    codes_ptr += code.to(tl.int64) * stride_ck
    for _ in range(d):
        x = tl.load(x_ptr, mask=x_mask, other=0).to(tl.float64)
        difference = x[:, None] - tl.load(codes_ptr, mask=mask, other=0).to(tl.float64)[None, :]
        squares += difference * difference
        x_ptr += stride_xd
        codes_ptr += stride_cd
    return tl.where(near, squares, float("inf"))


@launched
@triton.jit(
    do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "n", "size", "tasks", "first", "total"],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _finish(
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
    score_ptr,
    nearest_ptr,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    n,
    size,
    d,
    tasks,
    first,
    total,
    STORE_CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SHARES: tl.constexpr,
):
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    count = tl.load(count_ptr + head).to(tl.int32)
    groups, shares, share, steps = _partition(count, size, ROWS, CODES)
    codes_ptr += head * stride_ch
    centre_ptr += head * d
    spread_ptr += head * d
    second_ptr = score_ptr + heads.to(tl.int64) * tasks * ROWS
    columns = tl.arange(0, CODES)
    for group in range(tl.program_id(0), groups, tl.num_programs(0)):
        rank = group * ROWS + tl.arange(0, ROWS)
        listed = rank < count
        row = tl.load(listed_ptr + head * n + rank, mask=listed, other=0)
        x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
        slot = (head * tasks + group * shares) * ROWS + tl.arange(0, ROWS)  # of the first share
        best = tl.full([ROWS, SHARES], float("inf"), tl.float64)
        second = best
        index = tl.full([ROWS, SHARES], _NONE, tl.int32)
        for start in range(0, shares, SHARES):
            part = start + tl.arange(0, SHARES)
            mask = listed[:, None] & (part < shares)[None, :]
            place = slot[:, None] + part[None, :] * ROWS
            score = tl.load(score_ptr + place, mask=mask, other=float("inf"))
            second = tl.minimum(second, tl.maximum(best, score))
            second = tl.minimum(second, tl.load(second_ptr + place, mask=mask, other=float("inf")))
            index = tl.where(score < best, tl.load(nearest_ptr + place, mask=mask, other=0), index)
            best = tl.minimum(best, score)
        smallest, lowest, second_smallest = _smallest_two(best, second, index)
        found = smallest < float("inf")
        limit = tl.where(found, smallest, 0.0) + 2 * _error(
            x_row_ptr, stride_xd, centre_ptr, spread_ptr, found, d, ROWS, CHANNELS
        )
        uncertain = found & (second_smallest <= limit)
        if tl.max(uncertain.to(tl.int32), 0) > 0:
            # Twice over the shares with near codes: for the smallest distance, and for the lowest index near it.
            distance = tl.full([ROWS], float("inf"), tl.float64)
            near_index = tl.full([ROWS], _NONE, tl.int32)
            for turn in tl.static_range(2):
                largest = distance_limit(distance, d)
                for part in range(shares):
                    score = tl.load(score_ptr + slot + part * ROWS)
                    begin = part * share
                    wanted = tl.max((uncertain & (score <= limit)).to(tl.int32), 0)
                    end = tl.where(wanted > 0, tl.minimum(begin + share, steps), begin)
                    for step in range(begin, end):
                        code = step * CODES + columns
                        scores = _scores(
                            x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, centre_ptr, uncertain,
                            code, size, d, ROWS, CODES, CHANNELS,
                        )  # fmt: skip
                        near = uncertain[:, None] & (scores <= limit[:, None])
                        if tl.max(tl.max(near.to(tl.int32), 1), 0) > 0:
                            squares = _squared_distances(
                                x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, near, code, d, ROWS, CODES
                            )
                            if turn == 0:
                                distance = tl.minimum(distance, tl.min(squares, 1))
                            else:
                                close = near & (squares <= largest[:, None])
                                candidate = tl.min(tl.where(close, code[None, :], _NONE), 1)
                                near_index = tl.minimum(near_index, candidate)
            lowest = tl.where(uncertain, near_index, lowest)
        lowest = tl.where(found, lowest, -1)
        out = head * total + first + row
        look_up(
            x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, lowest.to(tl.int64), out, listed,
            indices_ptr, chosen_ptr, distance_ptr, d, STORE_CODES, ROWS, CHANNELS,
        )  # fmt: skip
