"""The chosen codes: index, code and distance of each row, written where they are known."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype


class Choice(NamedTuple):
    """The results of a search, in the order in which `nearest_lookup` returns them."""

    indices: Tensor  # [H, N] int64, −1 without a code
    codes: Tensor  # [H, N, D] in the inputs' compute dtype, zero without a code; empty if not wanted
    squared_distance: Tensor  # [H, N] in the same dtype, NaN without a code


def empty_choice(x: Tensor, codebook: Tensor, *, codes: bool) -> Choice:
    """Return a choice for the rows of [H, N, D], to be written by kernels."""
    heads, n, d = x.shape
    dtype = compute_dtype(x, codebook)
    indices = x.new_empty((heads, n), dtype=torch.int64)
    chosen = x.new_empty((heads, n, d) if codes else (0,), dtype=dtype)
    return Choice(indices, chosen, x.new_empty((heads, n), dtype=dtype))


@triton.jit
def write_choice(
    index,
    mask,
    out,
    x_ptr,
    stride_xd,
    codes_ptr,
    stride_ck,
    stride_cd,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    d,
    CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the choices of rows; Σ(x − e)² is summed in float64 from the unconverted inputs.

    Args:
        index: [ROWS] int32, negative without a code.
        mask, out: [ROWS] which rows to write, and their positions in the results.
        x_ptr: [ROWS] pointers to the rows.
        codes_ptr: pointer to the codes of the head.
        CODES: whether to write the codes.
    """
    chosen = mask & (index >= 0)
    code_ptr = codes_ptr + tl.where(chosen, index, 0).to(tl.int64) * stride_ck
    squares = tl.zeros([ROWS], tl.float64)
    for start in range(0, d, CHANNELS):
        channels = start + tl.arange(0, CHANNELS)
        here = channels < d
        inside = chosen[:, None] & here[None, :]
        step = channels.to(tl.int64)[None, :]
        code = tl.load(code_ptr[:, None] + step * stride_cd, mask=inside, other=0).to(tl.float64)
        difference = tl.load(x_ptr[:, None] + step * stride_xd, mask=inside, other=0).to(tl.float64) - code
        squares += tl.sum(difference * difference, 1)
        if CODES:
            place = chosen_ptr + out[:, None] * d + channels[None, :]
            tl.store(place, code.to(chosen_ptr.dtype.element_ty), mask=mask[:, None] & here[None, :])
    distance = tl.where(chosen, squares, float("nan"))
    tl.store(distance_ptr + out, distance.to(distance_ptr.dtype.element_ty), mask=mask)
    tl.store(indices_ptr + out, tl.where(chosen, index, -1).to(tl.int64), mask=mask)
