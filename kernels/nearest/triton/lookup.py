"""The chosen codes and their distances."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.pack import load_tile
from quantizers.kernels.nearest.triton.search import UNDECIDED

ROWS = 64  # per program
CHANNELS = 32  # per step
_UNDECIDED = tl.constexpr(UNDECIDED)


def lookup(x: Tensor, codebook: Tensor, found: Tensor, *, codes: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes and distances, Σ(x − e)² summed in float64 from the unconverted inputs.

    Args:
        x: [H, N, D].
        codebook: [H, K, D].
        found: [H, N] int32, negative or UNDECIDED if a vector has no code.
        codes: whether to store the codes.

    Returns:
        indices: [H, N] int64, −1 without a code.
        codes: [H, N, D] in the inputs' compute dtype, zero without a code; empty if `codes` is false.
        squared_distance: [H, N] in the same dtype, NaN without a code.
    """
    heads, n, d = x.shape
    dtype = compute_dtype(x, codebook)
    indices = torch.empty_like(found, dtype=torch.int64)
    chosen = x.new_empty((heads, n, d) if codes else (0,), dtype=dtype)
    squared_distance = torch.empty_like(found, dtype=dtype)
    if found.numel():
        _lookup[(heads * triton.cdiv(n, ROWS),)](
            x,
            *x.stride(),
            codebook,
            *codebook.stride(),
            found,
            indices,
            chosen,
            squared_distance,
            n,
            d,
            CODES=codes,
            ROWS=ROWS,
            CHANNELS=CHANNELS,
            enable_fp_fusion=True,
        )
    return indices, chosen, squared_distance


@triton.jit(do_not_specialize=["stride_xh", "stride_xn", "stride_ch", "stride_ck", "n"])
def _lookup(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    found_ptr,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    n,
    d,
    CODES: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(n, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    out = head * n + row
    index = tl.load(found_ptr + out, mask=inside, other=-1)
    chosen = inside & (index >= 0) & (index < _UNDECIDED)
    index = tl.where(chosen, index, -1).to(tl.int64)
    x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
    code_ptr = codes_ptr + head * stride_ch + index * stride_ck
    squares = tl.zeros([ROWS], tl.float64)
    for channel in range(0, d, CHANNELS):
        code = load_tile(code_ptr, chosen, channel, d, stride_cd, CHANNELS)
        difference = load_tile(x_row_ptr, chosen, channel, d, stride_xd, CHANNELS) - code
        squares += tl.sum(difference * difference, 1)
        if CODES:
            channels = channel + tl.arange(0, CHANNELS)
            place = chosen_ptr + out[:, None] * d + channels[None, :]
            mask = inside[:, None] & (channels < d)[None, :]
            tl.store(place, code.to(chosen_ptr.dtype.element_ty), mask=mask)
    distance = tl.where(chosen, squares, float("nan"))
    tl.store(distance_ptr + out, distance.to(distance_ptr.dtype.element_ty), mask=inside)
    tl.store(indices_ptr + out, index, mask=inside)
