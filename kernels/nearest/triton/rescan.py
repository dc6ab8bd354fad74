"""The nearest code of selected rows by the difference form in float64: equations (4) and (5) of
kernels/nearest/README.md.

Only the device knows which rows, and how many: a fixed number of programs shares them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.triton.loads import converted
from quantizers.kernels.nearest.triton.decide import Undecided
from quantizers.kernels.nearest.triton.lookup import Found, distance_limit, look_up

ROWS = 16  # per task
CODES = 64  # per step
SHARES = 32  # of the codes per step, to find the smallest distance over all shares
CHANNELS = 32  # per step of the lookup
WARPS = 4
PROGRAMS_PER_MULTIPROCESSOR = 4
_NONE = tl.constexpr(2**31 - 1)


def every_row(x: Tensor) -> Undecided:
    """Return all rows of [H, N, D]."""
    rows = x.shape[0] * x.shape[1]
    return Undecided(
        torch.arange(rows, device=x.device), torch.full((1,), rows, dtype=torch.int64, device=x.device)
    )


def rescan(x: Tensor, codebook: Tensor, undecided: Undecided, found: Found) -> None:
    """Write the results of the undecided rows to `found`, whose other rows stay as they are."""
    heads, n, d = x.shape
    programs = PROGRAMS_PER_MULTIPROCESSOR * device_properties(x.device).multiprocessors
    tasks = max(programs, triton.cdiv(heads * n, ROWS))
    nearest, lowest_squares = (x.new_empty((tasks, ROWS), dtype=torch.float64) for _ in range(2))
    lowest = torch.empty_like(nearest, dtype=torch.int32)
    inputs = (x, *x.stride(), codebook, *codebook.stride(), *undecided, nearest, lowest, lowest_squares)
    sizes = (programs, n, codebook.shape[1], d)
    _scan[(programs,)](*inputs, *sizes, ROWS=ROWS, CODES=CODES, num_warps=WARPS, enable_fp_fusion=True)
    _settle[(programs,)](
        *inputs,
        *found,
        *sizes,
        WITH_CODES=found.codes.dim() == 3,
        ROWS=ROWS,
        CODES=CODES,
        SHARES=SHARES,
        CHANNELS=CHANNELS,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )


@triton.jit
def _share_of(count, size, programs, ROWS: tl.constexpr, CODES: tl.constexpr):
    """How many programs share the codes of a group of ROWS listed rows, and how many codes each scans."""
    groups = tl.cdiv(count, ROWS)
    steps = tl.cdiv(size, CODES)
    shares = tl.minimum(tl.maximum(programs // tl.maximum(groups, 1), 1), steps)
    return shares, tl.cdiv(steps, shares) * CODES


@triton.jit
def _squares(x_row_ptr, stride_xd, code_ptr, stride_cd, listed, inside, d):
    """Squared distances of rows [R] from codes [R, C] in float64; +inf for codes that are not finite."""
    squares = tl.zeros(code_ptr.shape, tl.float64)
    for _ in range(d):
        value = converted(tl.load(x_row_ptr, mask=listed, other=0), tl.float64)
        difference = value[:, None] - converted(tl.load(code_ptr, mask=inside, other=0), tl.float64)
        squares += difference * difference
        x_row_ptr += stride_xd
        code_ptr += stride_cd
    # A value that is not finite makes the sum NaN or infinite.
    return tl.where(inside & (squares < float("inf")), squares, float("inf"))


@triton.jit
def _lowest(squares, limit, code):
    """The lowest of the codes [C] whose squares [R, C] are finite and at most the row's limit."""
    near = (squares <= limit[:, None]) & (squares < float("inf"))
    return tl.min(tl.where(near, code[None, :].to(tl.int32), _NONE), 1)


@triton.jit(
    do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "programs", "n", "size"],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _scan(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    listed_ptr,
    count_ptr,
    nearest_ptr,
    lowest_ptr,
    lowest_squares_ptr,
    programs,
    n,
    size,
    d,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
):
    """The smallest squared distance of each listed row over each share of the codes, the lowest index within (12)
    of it, and the squared distance of that code.

    The last is +inf if the lowest index is lost: a later code came so near that the code with the lowest index is
    beyond (12), but another one may not be. A task is ROWS listed rows against one share of the codes.
    """
    count = tl.load(count_ptr)
    shares, share = _share_of(count, size, programs, ROWS, CODES)
    for task in range(tl.program_id(0), tl.cdiv(count, ROWS) * shares, programs):
        rank = (task // shares) * ROWS + tl.arange(0, ROWS)
        listed = rank < count
        row = tl.load(listed_ptr + rank, mask=listed, other=0)
        head = row // n
        x_row_ptr = x_ptr + head * stride_xh + (row % n) * stride_xn
        head_ptr = codes_ptr + head * stride_ch
        nearest = tl.full([ROWS], float("inf"), tl.float64)
        lowest = tl.full([ROWS], _NONE, tl.int32)
        lowest_squares = nearest
        first = (task % shares) * share
        for start in range(first, tl.minimum(first + share, size), CODES):
            code = (start + tl.arange(0, CODES)).to(tl.int64)
            inside = listed[:, None] & (code < size)[None, :]
            code_ptr = head_ptr[:, None] + code[None, :] * stride_ck
            squares = _squares(x_row_ptr, stride_xd, code_ptr, stride_cd, listed, inside, d)
            least = tl.minimum(nearest, tl.min(squares, 1))
            limit = distance_limit(least, d)
            lowest_here = _lowest(squares, limit, code)
            squares_here = tl.min(tl.where(code[None, :] == lowest_here[:, None], squares, float("inf")), 1)
            known = tl.where(lowest_squares <= limit, lowest_squares, float("inf"))
            lowest_squares = tl.where(nearest <= limit, known, squares_here)
            lowest = tl.where(nearest <= limit, lowest, lowest_here)
            nearest = least
        out = task * ROWS + tl.arange(0, ROWS)
        tl.store(nearest_ptr + out, nearest)
        tl.store(lowest_ptr + out, lowest)
        tl.store(lowest_squares_ptr + out, lowest_squares)


@triton.jit
def _lowest_of_all(
    x_row_ptr, stride_xd, head_ptr, stride_ck, stride_cd, listed, limit, size, d, CODES: tl.constexpr
):
    """The lowest of all codes whose squared distances from the listed rows are at most their limits."""
    result = tl.full(limit.shape, _NONE, tl.int32)
    for start in range(0, size, CODES):
        code = (start + tl.arange(0, CODES)).to(tl.int64)
        inside = listed[:, None] & (code < size)[None, :]
        code_ptr = head_ptr[:, None] + code[None, :] * stride_ck
        squares = _squares(x_row_ptr, stride_xd, code_ptr, stride_cd, listed, inside, d)
        result = tl.minimum(result, _lowest(squares, limit, code))
    return result


@triton.jit
def _places(group, start, shares, ROWS: tl.constexpr, SHARES: tl.constexpr):
    """The places [SHARES, ROWS] of a group's results for the shares from `start` on, and which of them exist."""
    share = start + tl.arange(0, SHARES)
    place = ((group * shares + share) * ROWS)[:, None] + tl.arange(0, ROWS)[None, :]
    return place, (share < shares)[:, None]


@triton.jit(
    do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "programs", "n", "size"],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _settle(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    listed_ptr,
    count_ptr,
    nearest_ptr,
    lowest_ptr,
    lowest_squares_ptr,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    programs,
    n,
    size,
    d,
    WITH_CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    SHARES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The lowest index within (12) of the smallest distance, and its code. A task is ROWS listed rows.

    The codes are scanned again only if the lowest index of a share was lost.
    """
    count = tl.load(count_ptr)
    shares, _ = _share_of(count, size, programs, ROWS, CODES)
    for group in range(tl.program_id(0), tl.cdiv(count, ROWS), programs):
        rank = group * ROWS + tl.arange(0, ROWS)
        listed = rank < count
        row = tl.load(listed_ptr + rank, mask=listed, other=0)
        head = row // n
        x_row_ptr = x_ptr + head * stride_xh + (row % n) * stride_xn
        head_ptr = codes_ptr + head * stride_ch
        smallest = tl.full([ROWS], float("inf"), tl.float64)
        for start in range(0, shares, SHARES):
            place, inside = _places(group, start, shares, ROWS, SHARES)
            nearest = tl.load(nearest_ptr + place, mask=inside, other=float("inf"))
            smallest = tl.minimum(smallest, tl.min(nearest, 0))
        limit = distance_limit(smallest, d)
        result = tl.full([ROWS], _NONE, tl.int32)
        lost = tl.zeros([ROWS], tl.int32)
        for start in range(0, shares, SHARES):
            place, inside = _places(group, start, shares, ROWS, SHARES)
            nearest = tl.load(nearest_ptr + place, mask=inside, other=float("inf"))
            squares = tl.load(lowest_squares_ptr + place, mask=inside, other=float("inf"))
            lowest = tl.load(lowest_ptr + place, mask=inside, other=_NONE)
            near = listed[None, :] & (nearest <= limit[None, :]) & (nearest < float("inf"))
            known = near & (squares <= limit[None, :])
            result = tl.minimum(result, tl.min(tl.where(known, lowest, _NONE), 0))
            lost = tl.maximum(lost, tl.max((near & ~known).to(tl.int32), 0))
        if tl.max(lost, 0) > 0:
            again = _lowest_of_all(
                x_row_ptr, stride_xd, head_ptr, stride_ck, stride_cd, lost > 0, limit, size, d, CODES
            )
            result = tl.minimum(result, again)
        index = tl.where(result == _NONE, -1, result).to(tl.int64)
        look_up(
            x_row_ptr,
            stride_xd,
            head_ptr,
            stride_ck,
            stride_cd,
            index,
            row,
            listed,
            indices_ptr,
            chosen_ptr,
            distance_ptr,
            d,
            WITH_CODES,
            ROWS,
            CHANNELS,
        )
