"""The chosen codes and their distances, as both searches write them."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.constants import EXTRA_ROUNDINGS, ROUNDOFF_FLOAT64
from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.vectors import compute_dtype

_ROUNDOFF = tl.constexpr(ROUNDOFF_FLOAT64)
_EXTRA_ROUNDINGS = tl.constexpr(EXTRA_ROUNDINGS)


class Found(NamedTuple):
    """The results of a search, which its last kernels write in place."""

    indices: Tensor  # [H, N] int64, −1 without a code
    codes: Tensor  # [H, N, D] in the inputs' compute dtype, zero without a code; or [0] if no codes are wanted
    squared_distance: Tensor  # [H, N] Σ(x − e)² in the same dtype, summed in float64; NaN without a code


def empty_found(x: Tensor, codebook: Tensor, *, codes: bool) -> Found:
    """Return uninitialised results for x [H, N, D], with room for the codes if they are wanted."""
    heads, n, d = x.shape
    dtype = compute_dtype(x, codebook)
    return Found(
        x.new_empty((heads, n), dtype=torch.int64),
        x.new_empty((heads, n, d) if codes else (0,), dtype=dtype),
        x.new_empty((heads, n), dtype=dtype),
    )


@triton.jit
def look_up(
    x_row_ptr,
    stride_xd,
    codes_ptr,
    stride_ck,
    stride_cd,
    index,
    out,
    mask,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    d,
    CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Store the indices [ROWS] int64 (negative: none), their distances and, if CODES, the codes themselves.

    Args:
        x_row_ptr: [ROWS] pointers to the vectors.
        codes_ptr: pointer, or [ROWS] pointers, to the first code of the row's head.
        out, mask: [ROWS] int64, the places in the results, and which of them are written.
    """
    chosen = mask & (index >= 0)
    code_ptr = codes_ptr + index * stride_ck
    squares = tl.zeros([ROWS], tl.float64)
    for channel in range(0, d, CHANNELS):
        code = load_tile(code_ptr, chosen, channel, d, stride_cd, CHANNELS)
        difference = load_tile(x_row_ptr, chosen, channel, d, stride_xd, CHANNELS) - code
        squares += tl.sum(difference * difference, 1)
        if CODES:
            store_tile(chosen_ptr + out * d, mask, channel, d, 1, code, CHANNELS)
    distance = tl.where(chosen, squares, float("nan"))
    tl.store(distance_ptr + out, distance.to(distance_ptr.dtype.element_ty), mask=mask)
    tl.store(indices_ptr + out, tl.where(chosen, index, -1), mask=mask)


@triton.jit
def distance_limit(smallest, d):
    """The largest computed squared distance that may be equal to the smallest: (12)."""
    # A product with a float64, since (2d + 16)·2⁻⁵³ alone would be float32 and vanish when added to 1.
    return smallest + smallest * (2 * (d + _EXTRA_ROUNDINGS)) * _ROUNDOFF
