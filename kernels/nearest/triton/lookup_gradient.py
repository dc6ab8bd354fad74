"""The gradients of vectors and codebook, from the gradients of the chosen codes and of the losses w ‖x − e‖²."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.sums.triton import code_sums

TILE = 1024  # elements per program


@replayed()
def lookup_vector_gradient(
    loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float
) -> Tensor:
    """As in kernels/nearest/reference.py, in one pass."""
    return _differences(2 * weight, loss_gradient, x, codes, indices, None, torch.empty_like(x.contiguous()))


@replayed()
def lookup_codebook_gradient(
    codes_gradient: Tensor | None,
    loss_gradient: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    weight: float,
    codebook_size: int,
) -> Tensor:
    """As in kernels/nearest/reference.py: one pass, then the sums of its rows."""
    result = torch.empty_like(codes.contiguous())
    rows = _differences(-2 * weight, loss_gradient, x, codes, indices, codes_gradient, result)
    return code_sums(rows, indices, codebook_size)[1]


def _differences(
    factor: float,
    scale: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    other: Tensor | None,
    result: Tensor,
) -> Tensor:
    """factor · scale · (x − codes) + other for rows with an index, else zero, into result [H, N, D]."""
    inputs = [tensor.contiguous() for tensor in (scale, x, codes, indices)]
    other = result if other is None else other.contiguous()
    if result.numel():
        d = x.shape[-1]
        rows, (block_n, block_d) = result.numel() // d, _tile(d)
        grid = (triton.cdiv(rows, block_n) * triton.cdiv(d, block_d),)
        _differences_kernel[grid](
            *inputs, other, result, rows, d, factor, other is not result, block_n, block_d, enable_fp_fusion=True
        )
    return result


def _tile(d: int) -> tuple[int, int]:
    """Return the rows and channels of one program."""
    block_d = min(TILE, triton.next_power_of_2(d))
    return TILE // block_d, block_d


@launched
@triton.jit(do_not_specialize=["n"])
def _differences_kernel(
    scale_ptr,
    x_ptr,
    codes_ptr,
    indices_ptr,
    other_ptr,
    result_ptr,
    n,
    d,
    factor: tl.float64,
    HAS_OTHER: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    blocks = tl.cdiv(d, BLOCK_D)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = (tl.program_id(0) % blocks) * BLOCK_D
    has_code = tl.load(indices_ptr + rows, mask=rows < n, other=-1) >= 0
    scale = tl.load(scale_ptr + rows, mask=has_code, other=0)
    scale *= tl.full([1], factor, scale.dtype)  # rounded to the gradient's dtype, as PyTorch rounds a number
    dtype: tl.constexpr = codes_ptr.dtype.element_ty
    difference = load_tile(x_ptr + rows * d, has_code, channel, d, 1, BLOCK_D, dtype)
    difference -= load_tile(codes_ptr + rows * d, has_code, channel, d, 1, BLOCK_D, dtype)
    result = scale.to(dtype)[:, None] * difference
    if HAS_OTHER:
        result += load_tile(other_ptr + rows * d, has_code, channel, d, 1, BLOCK_D, dtype)
    result = tl.where(has_code[:, None], result, 0)  # a scale that is not finite makes NaN of zeros
    store_tile(result_ptr + rows * d, rows < n, channel, d, 1, result, BLOCK_D)
