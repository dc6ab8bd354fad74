"""How far leaves may be from rows: equations (19) to (21) of kernels/nearest/README.md."""

import triton
import triton.language as tl

from quantizers.kernels.common.constants import ROUNDOFF_FLOAT32
from quantizers.kernels.nearest.triton.certificate import score_error

# t of rows that may skip leaves: neither (20) nor what (19) says of (12) holds for all that are farther out.
_SMALLEST_FACTOR = tl.constexpr(2.0**-12)
_ROUNDOFF = tl.constexpr(ROUNDOFF_FLOAT32)
# Roundings of float32, relative to what they round: of the squared length of a row, and of (20) and (21).
_LENGTH_ROUNDINGS = tl.constexpr(4.0)
_ROUNDINGS = tl.constexpr(64.0)


@triton.jit
def limits(best, length, residual, factor, lengths_ptr, head, heads, product_error, square_error):
    """(21) [R] float32: the largest squared difference of coordinates that a leaf may have from each row.

    +inf where nothing is known, and −1 for rows that are not finite, which need no leaf.
    """
    found = length < float("inf")
    length = tl.where(found, length, 0.0)
    error = score_error(length, residual, factor, lengths_ptr, head, heads, product_error, square_error)
    factor = factor.to(tl.float64)
    norm = length.to(tl.float64) / factor
    square = norm * norm * (1 + _LENGTH_ROUNDINGS * _ROUNDOFF)
    square += 2 * (best.to(tl.float64) + 2 * error.to(tl.float64)) / factor
    radius = tl.sqrt(tl.load(lengths_ptr + head).to(tl.float32, bitcast=True)).to(tl.float64)
    reach = tl.sqrt(tl.where(square < 0, 0.0, square)) + 2 * _ROUNDOFF * (norm + radius)
    limit = reach * reach * (1 + _ROUNDINGS * _ROUNDOFF)
    known = (limit < float("inf")) & (factor >= _SMALLEST_FACTOR)  # and not NaN
    return tl.where(found, tl.where(known, limit, float("inf")), -1.0).to(tl.float32)
