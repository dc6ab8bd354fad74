"""The nearest code of selected rows by the difference form in float64: equations (4) and (5) of
kernels/nearest/README.md.

Only the device knows which rows, and how many: a fixed number of programs shares them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.nearest.triton.decide import Undecided
from quantizers.kernels.nearest.triton.lookup import Found, look_up
from quantizers.kernels.nearest.triton.tiles import device_properties

ROWS = 16  # per task of the scan
CODES = 64  # per step of the scan
ROW_CODES = 128  # per step for a single row
CHANNELS = 128  # per step of the lookup of a single row
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
    nearest = x.new_empty((tasks, ROWS), dtype=torch.float64)
    inputs = (x, *x.stride(), codebook, *codebook.stride(), *undecided, nearest)
    sizes = (programs, n, codebook.shape[1], d)
    _scan[(programs,)](*inputs, *sizes, ROWS=ROWS, CODES=CODES, enable_fp_fusion=True)
    _settle[(programs,)](
        *inputs,
        *found,
        *sizes,
        WITH_CODES=found.codes.dim() == 3,
        ROWS=ROWS,
        CODES=CODES,
        ROW_CODES=ROW_CODES,
        CHANNELS=CHANNELS,
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
        value = tl.load(x_row_ptr, mask=listed, other=0).to(tl.float64)
        difference = value[:, None] - tl.load(code_ptr, mask=inside, other=0).to(tl.float64)
        squares += difference * difference
        x_row_ptr += stride_xd
        code_ptr += stride_cd
    # A value that is not finite makes the sum NaN or infinite.
    return tl.where(inside & (squares < float("inf")), squares, float("inf"))


@triton.jit(do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "programs", "n", "size"])
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
    programs,
    n,
    size,
    d,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
):
    """The smallest squared distance of each listed row over each share of the codes.

    A task is ROWS listed rows against one share of the codes.
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
        first = (task % shares) * share
        for start in range(first, tl.minimum(first + share, size), CODES):
            code = (start + tl.arange(0, CODES)).to(tl.int64)
            inside = listed[:, None] & (code < size)[None, :]
            code_ptr = head_ptr[:, None] + code[None, :] * stride_ck
            squares = _squares(x_row_ptr, stride_xd, code_ptr, stride_cd, listed, inside, d)
            nearest = tl.minimum(nearest, tl.min(squares, 1))
        tl.store(nearest_ptr + task * ROWS + tl.arange(0, ROWS), nearest)


@triton.jit(do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "programs", "n", "size"])
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
    ROW_CODES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The lowest index within (5) of the smallest distance, and its code. A task is one listed row.

    Only shares of the codes whose smallest distance is within (5) are scanned again: one, as a rule.
    """
    count = tl.load(count_ptr)
    shares, share = _share_of(count, size, programs, ROWS, CODES)
    for rank in range(tl.program_id(0), count, programs):
        # Tensors of one element, since a row is a tile of one row.
        one = rank + tl.zeros([1], tl.int64)
        listed = one < count
        row = tl.load(listed_ptr + one)
        head = row // n
        x_row_ptr = x_ptr + head * stride_xh + (row % n) * stride_xn
        head_ptr = codes_ptr + head * stride_ch
        nearest_row_ptr = nearest_ptr + (rank // ROWS) * shares * ROWS + rank % ROWS
        smallest = tl.load(nearest_row_ptr)
        for part in range(1, shares):
            smallest = tl.minimum(smallest, tl.load(nearest_row_ptr + part * ROWS))
        # A product with a float64, since (2d + 16)·2⁻⁵³ alone would be float32 and vanish when added to 1.
        limit = smallest + smallest * (2 * d + 16) * 1.1102230246251565e-16
        result = tl.full([1], _NONE, tl.int32)
        for part in range(shares):
            nearest = tl.load(nearest_row_ptr + part * ROWS)
            # A later share has no lower index.
            if (nearest <= limit) & (nearest < float("inf")) & (tl.min(result, 0) == _NONE):
                for start in range(part * share, tl.minimum((part + 1) * share, size), ROW_CODES):
                    code = start + tl.arange(0, ROW_CODES)
                    inside = (code < tl.minimum((part + 1) * share, size))[None, :] & listed[:, None]
                    code_ptr = head_ptr[:, None] + code.to(tl.int64)[None, :] * stride_ck
                    squares = _squares(x_row_ptr, stride_xd, code_ptr, stride_cd, listed, inside, d)
                    near = (squares <= limit) & (squares < float("inf"))
                    lowest = tl.min(tl.where(near, code[None, :].to(tl.int32), _NONE), 1)
                    result = tl.minimum(result, lowest)
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
            1,
            CHANNELS,
        )
