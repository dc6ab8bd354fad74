"""The nearest code of selected rows by the difference form in float64: (4) and (5) of kernels/nearest/README.md.

Only the device knows which rows, and how many: a fixed number of programs shares them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.search import UNDECIDED, Decision
from quantizers.kernels.nearest.triton.tiles import device_properties

ROWS = 16  # per task
CODES = 64  # per step
PROGRAMS_PER_MULTIPROCESSOR = 4
_COMPACT = 1024  # rows per program of the kernel that lists undecided rows
_UNDECIDED = tl.constexpr(UNDECIDED)


def every_row(x: Tensor) -> Decision:
    """Return a decision with all rows of [H, N, D] undecided, except those that are not finite."""
    finite = x.isfinite().all(-1)
    smallest = torch.full(finite.shape, torch.inf, dtype=torch.float64, device=x.device).view(torch.int64)
    indices = torch.full_like(smallest, UNDECIDED, dtype=torch.int32).masked_fill(~finite, -1)
    return Decision(indices, finite.int(), smallest)


def rescan(x: Tensor, codebook: Tensor, decision: Decision) -> None:
    """Replace UNDECIDED in `decision.indices` by the nearest code; it remains if no code is finite.

    Integer atomics combine the minima over splits of the codes. Their result does not depend on their order.
    """
    heads, n, d = x.shape
    position = decision.undecided.view(-1).cumsum(0)
    listed = torch.empty_like(position)
    _list_rows[(triton.cdiv(heads * n, _COMPACT),)](decision.undecided, position, listed, heads * n, ROWS=_COMPACT)
    programs = PROGRAMS_PER_MULTIPROCESSOR * device_properties(x.device).multiprocessors
    for lowest in (False, True):
        _rescan[(programs,)](
            x,
            *x.stride(),
            codebook,
            *codebook.stride(),
            listed,
            position,
            decision.smallest,
            decision.indices,
            heads * n,
            n,
            codebook.shape[1],
            d,
            LOWEST=lowest,
            ROWS=ROWS,
            CODES=CODES,
            enable_fp_fusion=True,
        )


@triton.jit(do_not_specialize=["count"])
def _list_rows(flag_ptr, position_ptr, listed_ptr, count, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    flag = tl.load(flag_ptr + row, mask=row < count, other=0)
    position = tl.load(position_ptr + row, mask=flag != 0, other=1)
    tl.store(listed_ptr + position - 1, row, mask=flag != 0)


@triton.jit(do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "rows", "n", "size"])
def _rescan(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    listed_ptr,
    position_ptr,
    smallest_ptr,
    indices_ptr,
    rows,
    n,
    size,
    d,
    LOWEST: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
):
    """If LOWEST is false, the smallest squared distance of each listed row; if true, the lowest index within (5)
    of it.

    A task is ROWS listed rows against one share of the codes.
    """
    count = tl.load(position_ptr + rows - 1)
    groups = tl.cdiv(count, ROWS)
    steps = tl.cdiv(size, CODES)
    shares = tl.minimum(tl.maximum(tl.num_programs(0) // tl.maximum(groups, 1), 1), steps)
    share = tl.cdiv(steps, shares)
    for task in range(tl.program_id(0), groups * shares, tl.num_programs(0)):
        rank = (task // shares) * ROWS + tl.arange(0, ROWS)
        listed = rank < count
        row = tl.load(listed_ptr + rank, mask=listed, other=0)
        head = row // n
        x_row_ptr = x_ptr + head * stride_xh + (row % n) * stride_xn
        if LOWEST:
            smallest = tl.load(smallest_ptr + row, mask=listed, other=0).to(tl.float64, bitcast=True)
            # A product with a float64, since (2d + 16)·2⁻⁵³ alone would be float32 and vanish when added to 1.
            limit = smallest + smallest * (2 * d + 16) * 1.1102230246251565e-16
            result = tl.full([ROWS], _UNDECIDED, tl.int32)
        else:
            nearest = tl.full([ROWS], float("inf"), tl.float64)
        first = (task % shares) * share
        for step in range(first, tl.minimum(first + share, steps)):
            code = (step * CODES + tl.arange(0, CODES)).to(tl.int32)
            code_ptr = codes_ptr + head[:, None] * stride_ch + code.to(tl.int64)[None, :] * stride_ck
            inside = listed[:, None] & (code < size)[None, :]
            squares = tl.zeros([ROWS, CODES], tl.float64)
            value_ptr = x_row_ptr
            for _ in range(d):
                value = tl.load(value_ptr, mask=listed, other=0).to(tl.float64)
                difference = value[:, None] - tl.load(code_ptr, mask=inside, other=0).to(tl.float64)
                squares += difference * difference
                value_ptr += stride_xd
                code_ptr += stride_cd
            # A code that is not finite makes the sum NaN or infinite.
            possible = inside & (squares < float("inf"))
            if LOWEST:
                near = possible & (squares <= limit[:, None])
                result = tl.minimum(result, tl.min(tl.where(near, code[None, :], _UNDECIDED), 1))
            else:
                nearest = tl.minimum(nearest, tl.min(tl.where(possible, squares, float("inf")), 1))
        if LOWEST:
            tl.atomic_min(indices_ptr + row, result, mask=listed)
        else:
            # The bits of non-negative numbers have the same order as the numbers.
            tl.atomic_min(smallest_ptr + row, nearest.to(tl.int64, bitcast=True), mask=listed)
