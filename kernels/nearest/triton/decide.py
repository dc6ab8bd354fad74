"""Which rows the scores decide, by equations (10) and (11) of kernels/nearest/README.md, and their codes."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.constants import ROUNDOFF_FLOAT32
from quantizers.kernels.nearest.triton.lookup import Found, look_up
from quantizers.kernels.nearest.triton.pack import Frame, Packed
from quantizers.kernels.nearest.triton.precision import ACCUMULATION, REST
from quantizers.kernels.nearest.triton.search import Partial

ROWS = 64  # per program
CHANNELS = 32  # per step
WARPS = 8
# (10): u = 2⁻²⁴. Splitting costs 3·2⁻²², centring two roundings, the last subtraction one.
_ROUNDOFF = tl.constexpr(ROUNDOFF_FLOAT32)
_SPLIT = tl.constexpr(15.0)
_ACCUMULATION = tl.constexpr(ACCUMULATION)
_REST = tl.constexpr(REST)  # of a bound that is never below 2⁻²⁴, due to the scaling


class Undecided(NamedTuple):
    """The rows left to the rescan, in any order. Only the device knows how many."""

    rows: Tensor  # [H · N] int64: head · N + row, in the first `number` places
    number: Tensor  # [1] int64


def decide(
    partial: Partial,
    x: Tensor,
    codebook: Tensor,
    where: Frame,
    packed: Packed,
    rows: range,
    found: Found,
    undecided: Undecided | None,
    *,
    resident: bool,
) -> None:
    """Merge the splits, and write the results of `rows` to `found`.

    If `undecided` is given, adds the rows whose second score is not safely larger (10) to it instead, and leaves
    their places in `found` as they are.

    Args:
        packed: `rows` of x, packed.
        resident: whether the search summed all channels of a product at once.
    """
    splits, heads, padded = partial.best.shape
    _decide[(heads * triton.cdiv(len(rows), ROWS),)](
        *partial,
        packed.half_squares,
        packed.factor,
        where.longest,
        x,
        *x.stride(),
        codebook,
        *codebook.stride(),
        *found,
        *(undecided or (found.indices, found.indices)),
        heads,
        rows.start,
        rows.stop,
        x.shape[1],
        padded,
        splits,
        x.shape[2],
        packed.high.shape[2],
        SUMS=1 if resident else 3,
        CERTIFY=undecided is not None,
        CODES=found.codes.dim() == 3,
        ROWS=ROWS,
        CHANNELS=CHANNELS,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )


@triton.jit(
    do_not_specialize=[
        "stride_xh",
        "stride_xn",
        "stride_ch",
        "stride_ck",
        "heads",
        "first",
        "stop",
        "n",
        "padded",
        "splits",
    ],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)
def _decide(
    best_ptr,
    second_ptr,
    index_ptr,
    x_half_ptr,
    factor_ptr,
    longest_ptr,
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    undecided_ptr,
    count_ptr,
    heads,
    first,
    stop,
    n,
    padded,
    splits,
    d,
    width,
    SUMS: tl.constexpr,
    CERTIFY: tl.constexpr,
    CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(stop - first, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    inside = first + row < stop
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
    row_in_head = (first + row).to(tl.int64)
    out = head * n + row_in_head
    certain = inside
    if CERTIFY:
        factor = tl.load(factor_ptr + head * padded + row, mask=inside, other=1.0)
        radius = tl.sqrt(2 * tl.load(longest_ptr + head).to(tl.float32, bitcast=True))
        products = (
            (_SPLIT + _ACCUMULATION * SUMS * width) * tl.sqrt(2 * tl.where(index >= 0, x_half, 0.0)) * radius
        )
        bound = _REST * _ROUNDOFF * (products + factor * radius * radius)
        undecided = (index >= 0) & ~(second - tl.where(index >= 0, best, 0.0) > 2 * bound)
        certain = inside & ~undecided
        number = tl.sum(undecided.to(tl.int32), 0)
        # The order of the programs decides the order of the list, and no result depends on that.
        position = tl.atomic_add(count_ptr, number.to(tl.int64), mask=number > 0)
        position += tl.cumsum(undecided.to(tl.int32), 0) - 1
        tl.store(undecided_ptr + position, out, mask=undecided)
    look_up(
        x_ptr + head * stride_xh + row_in_head * stride_xn,
        stride_xd,
        codes_ptr + head * stride_ch,
        stride_ck,
        stride_cd,
        index.to(tl.int64),
        out,
        certain,
        indices_ptr,
        chosen_ptr,
        distance_ptr,
        d,
        CODES,
        ROWS,
        CHANNELS,
    )
