"""The rows that a float32 search leaves open, decided by pairs of float32 numbers instead of in float64.

A pair (high, low) stands for high + low with about 48 bits. Sums and products of two numbers are exact as pairs:
Knuth, The Art of Computer Programming 2, §4.2.2 (sum); Dekker, A floating-point technique for extending the
available precision, 1971 (product, without fused multiply-add).
"""

import torch
from torch import Tensor

from quantizers.kernels.nearest import blocked

SPLIT = 2.0**12 + 1
ROUNDOFF = 2.0**-45  # of one step with pairs: no more than eight errors of 2⁻⁴⁸


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, int, int]:
    """Return indices [N] of finite vectors [N, D] among finite codes [K, D], float32; and how many rows were open
    after the scores in float32, and after the distances in pairs.
    """
    packed = blocked._pack(codebook)
    parts = [blocked._search_rows(block, packed) for block in torch.split(x, blocked.ROWS)]
    indices, uncertain = (torch.cat(each) for each in zip(*parts, strict=True))
    left = uncertain.nonzero().flatten()
    if not left.shape[0]:
        return indices, 0, 0
    indices[left], is_open = _decided(x[left], codebook, packed)
    still = left[is_open]
    if still.shape[0]:
        indices[still] = blocked._decided_exactly(x[still], codebook)
    return indices, left.shape[0], still.shape[0]


def _decided(x: Tensor, codebook: Tensor, packed: blocked._Packed) -> tuple[Tensor, Tensor]:
    """Return indices [R] by the distances in pairs, and which rows these leave open [R]: with a tie, above all."""
    centred = x - packed.centre
    scores = centred @ packed.weights[:, :-1].T + packed.weights[:, -1]
    rows, codes = (scores <= blocked._threshold(centred, scores.amin(-1), packed)[:, None]).nonzero(as_tuple=True)
    high, low = squared_distances(x[rows], codebook[codes])
    first = _smallest(high, rows, x.shape[0])
    second = _smallest(low.where(high == first[rows], torch.inf), rows, x.shape[0])
    gap = (high - first[rows]) + (low - second[rows])
    near = gap <= 2 * (x.shape[1] + 8) * ROUNDOFF * first[rows]
    count = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device).index_add_(0, rows, near.long())
    indices = torch.zeros_like(count).index_copy_(0, rows[near], codes[near])
    return indices, count != 1


def squared_distances(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖x − e‖² of rows [P, D] and codes [P, D] as pairs [P]."""
    high = low = torch.zeros_like(x[:, 0])
    for channel in range(x.shape[1]):
        difference, rest = two_sum(x[:, channel], -codes[:, channel])
        square, error = two_product(difference, difference)
        total, carry = two_sum(high, square)
        high, low = two_sum(total, low + (carry + (error + 2 * difference * rest)))
    return high, low


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a + b, rounded, and what the rounding took."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a · b, rounded, and what the rounding took."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return two numbers of 12 bits with the sum a."""
    scaled = SPLIT * a
    high = scaled - (scaled - a)
    return high, a - high


def _smallest(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the smallest value of each row, [count]."""
    return values.new_full((count,), torch.inf).scatter_reduce(0, rows, values, "amin")
