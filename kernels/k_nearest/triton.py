"""The k nearest codes on a GPU, in float64: equations (1) to (3) of kernels/k_nearest/README.md.

PyTorch multiplies, and sorts scores. A kernel decides the rows for which scores leave the order uncertain.
"""

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.k_nearest.reference import first_by_score, in_blocks
from quantizers.kernels.nearest import reference as nearest
from quantizers.kernels.nearest.reference import Packed
from quantizers.kernels.nearest.triton.lookup import distance_limit

SCORE_BUDGET = 2**25  # elements in the largest block: 256 MiB in float64
CODES = 128  # per step
_NONE = tl.constexpr(2**31 - 1)  # instead of an index


@replayed()
def k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As in kernels/k_nearest/reference.py."""
    return in_blocks(x, codebook, k, _k_nearest_rows, SCORE_BUDGET)


def _k_nearest_rows(x: Tensor, packed: Packed, k: int) -> Tensor:
    x, finite = nearest.finite_or_zero(x)
    scores, bound = nearest.scores_of(x, packed)
    indices, uncertain = first_by_score(scores, bound, k)
    indices = indices.contiguous()
    _one_by_one[(len(x),)](
        x.contiguous(),
        packed.codes,
        scores,
        bound,
        uncertain,
        indices,
        *scores.shape[1:],
        x.shape[1],
        k,
        CODES=CODES,
    )
    return indices.where(finite[:, None], -1)


@launched
@triton.jit(do_not_specialize=["size", "k"])
def _one_by_one(
    x_ptr, codes_ptr, scores_ptr, bound_ptr, uncertain_ptr, indices_ptr, size, d, k, CODES: tl.constexpr
):
    """Write the indices of one row, if its order is uncertain: each time the nearest code that is left.

    The score of a code that is taken becomes infinite.
    """
    row = tl.program_id(0).to(tl.int64)
    if tl.load(uncertain_ptr + row):
        x_ptr += row * d
        scores_ptr += row * size
        margin = 2 * tl.load(bound_ptr + row)
        for place in range(k):
            smallest = tl.full([CODES], float("inf"), tl.float64)
            for first in range(0, size, CODES):
                smallest = tl.minimum(smallest, _scores(scores_ptr, first, size, CODES))
            least = tl.min(smallest, 0)
            if least < float("inf"):
                index = _nearest(x_ptr, codes_ptr, scores_ptr, least + margin, size, d, CODES)
                tl.debug_barrier()  # all threads have read the scores
                tl.store(scores_ptr + index, float("inf"))
                tl.debug_barrier()  # and see this one
                tl.store(indices_ptr + row * k + place, index.to(tl.int64))
            else:
                tl.store(indices_ptr + row * k + place, -1)


@triton.jit
def _nearest(x_ptr, codes_ptr, scores_ptr, limit, size, d, CODES: tl.constexpr):
    """The lowest index that (2) leaves among the codes with scores up to the limit, int32."""
    smallest = tl.full([CODES], float("inf"), tl.float64)
    for first in range(0, size, CODES):
        near = _scores(scores_ptr, first, size, CODES) <= limit
        if tl.max(near.to(tl.int32), 0) > 0:
            smallest = tl.minimum(smallest, _squares(x_ptr, codes_ptr, first, near, d, CODES))
    largest = distance_limit(tl.min(smallest, 0), d)
    lowest = tl.full([CODES], _NONE, tl.int32)
    for first in range(0, size, CODES):
        near = _scores(scores_ptr, first, size, CODES) <= limit
        if tl.max(near.to(tl.int32), 0) > 0:
            close = near & (_squares(x_ptr, codes_ptr, first, near, d, CODES) <= largest)
            lowest = tl.minimum(lowest, tl.where(close, first + tl.arange(0, CODES), _NONE))
    return tl.min(lowest, 0)


@triton.jit
def _scores(scores_ptr, first, size, CODES: tl.constexpr):
    """The scores of CODES codes, +inf outside the codebook."""
    codes = first + tl.arange(0, CODES)
    return tl.load(scores_ptr + codes, mask=codes < size, other=float("inf"))


@triton.jit
def _squares(x_ptr, codes_ptr, first, near, d, CODES: tl.constexpr):
    """Σ(x − e)² [CODES] of the codes from `first` on that are near; +inf of the others."""
    codes_ptr += (first + tl.arange(0, CODES)).to(tl.int64) * d
    squares = tl.zeros([CODES], tl.float64)
    for channel in range(d):
        difference = tl.load(x_ptr + channel) - tl.load(codes_ptr + channel, mask=near, other=0.0)
        squares += difference * difference
    return tl.where(near, squares, float("inf"))
