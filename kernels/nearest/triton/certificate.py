"""The bound (10) on the error of a score, as the kernels compute it."""

import triton
import triton.language as tl

from quantizers.kernels.nearest.triton.precision import REST

_REST = tl.constexpr(REST)


@triton.jit
def score_error(length, residual, factor, lengths_ptr, head, heads, product_error, square_error):
    """E of (10) for packed rows.

    Args:
        length, residual, factor: of the rows, as PackedRows has them; finite.
        lengths_ptr: pointer to the lengths of a Frame.
        product_error, square_error: the coefficients of a Bound.
    """
    radius = tl.sqrt(tl.load(lengths_ptr + head).to(tl.float32, bitcast=True))
    rough = tl.sqrt(tl.load(lengths_ptr + heads + head).to(tl.float32, bitcast=True))
    rounded = length + residual
    error = _REST * (residual * radius + rounded * rough)
    return error + (product_error * rounded * (radius + rough) + square_error * factor * radius * radius)
