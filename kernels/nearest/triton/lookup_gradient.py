"""The gradients of vectors and codebook, from the gradients of the chosen codes and of the losses w ‖x − e‖²."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.sums.triton import code_sums

BLOCK = 1024  # elements per program


@torch.no_grad()
def lookup_vector_gradient(
    loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float
) -> Tensor:
    """As in kernels/nearest/reference.py, in one pass."""
    return _differences(2 * weight * loss_gradient, x, codes, indices, None, torch.empty_like(x.contiguous()))


@torch.no_grad()
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
    rows = _differences(-2 * weight * loss_gradient, x, codes, indices, codes_gradient, result)
    return code_sums(rows, indices, codebook_size)[1]


def _differences(
    scale: Tensor, x: Tensor, codes: Tensor, indices: Tensor, other: Tensor | None, result: Tensor
) -> Tensor:
    """scale · (x − codes) + other for rows with an index, else zero, into result [H, N, D]."""
    inputs = [tensor.contiguous() for tensor in (scale, x, codes, indices)]
    other = result if other is None else other.contiguous()
    if result.numel():
        _differences_kernel[(triton.cdiv(result.numel(), BLOCK),)](
            *inputs, other, result, result.numel(), x.shape[-1], other is not result, BLOCK, enable_fp_fusion=True
        )
    return result


@triton.jit(do_not_specialize=["count"])
def _differences_kernel(
    scale_ptr,
    x_ptr,
    codes_ptr,
    indices_ptr,
    other_ptr,
    result_ptr,
    count,
    d,
    HAS_OTHER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = element < count
    row = element // d
    has_code = tl.load(indices_ptr + row, mask=mask, other=-1) >= 0
    code = tl.load(codes_ptr + element, mask=mask, other=0)
    difference = tl.load(x_ptr + element, mask=mask, other=0).to(code.dtype) - code
    result = tl.load(scale_ptr + row, mask=mask, other=0).to(code.dtype) * difference
    if HAS_OTHER:
        result += tl.load(other_ptr + element, mask=mask, other=0).to(code.dtype)
    result = tl.where(has_code, result, 0)
    tl.store(result_ptr + element, result.to(result_ptr.dtype.element_ty), mask=mask)
