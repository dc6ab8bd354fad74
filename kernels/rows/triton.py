"""Rows that count and rows that do not, in one pass each; a mean in two, which add in a fixed order."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import converted, load_tile, store_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.common.vectors import compute_dtype

TILE = 1024  # elements of a program's tile
LOSSES = 1024  # losses that a program adds at a time
MOST_PARTS = 1024  # partial sums of a head's losses


@replayed()
def finite_rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """As in kernels/rows/reference.py."""
    x = x.contiguous()
    vectors, valid = torch.empty_like(x, dtype=compute_dtype(x)), x.new_empty(x.shape[0], dtype=torch.bool)
    if x.numel():
        block_n, block_d = _tile(x.shape[1])
        _finite_kernel[(triton.cdiv(x.shape[0], block_n),)](
            x,
            valid if mask is None else mask.contiguous(),
            vectors,
            valid,
            *x.shape,
            mask is not None,
            block_n,
            block_d,
        )
    return vectors, valid


@replayed()
def marked_rows(codes: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """As in kernels/rows/reference.py."""
    codes, indices = codes.contiguous(), indices.contiguous()
    marked, numbers = torch.empty_like(codes), torch.empty_like(indices)
    (n, d), columns = codes.shape, indices[:1].numel()
    if codes.numel():
        block_n, block_d = _tile(max(d, columns))
        _marked_kernel[(triton.cdiv(n, block_n),)](
            codes, indices, valid.contiguous(), marked, numbers, n, d, columns, block_n, block_d
        )
    return marked, numbers


@replayed()
def rows_gradient(gradient: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
    """As in kernels/rows/reference.py."""
    result = torch.empty(gradient.shape, dtype=dtype, device=gradient.device)
    if result.numel():
        block_n, block_d = _tile(gradient.shape[1])
        _gradient_kernel[(triton.cdiv(gradient.shape[0], block_n),)](
            gradient, *gradient.stride(), valid.contiguous(), result, *gradient.shape, block_n, block_d
        )
    return result


@replayed()
def mean_loss(losses: Tensor, valid: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """As in kernels/rows/reference.py, with sums in float64; also returns the divisor of its gradient."""
    losses = losses.contiguous()
    *shape, n = losses.shape
    heads = math.prod(shape)
    parts = min(MOST_PARTS, max(1, triton.cdiv(n, LOSSES)))
    partial = losses.new_empty(heads, 2, parts, dtype=torch.float64)
    means, divisor = losses.new_empty(shape), losses.new_empty((), dtype=torch.int64)
    if heads:
        _partial_kernel[(parts, heads)](losses, valid.contiguous(), partial, n, parts, LOSSES)
        _mean_kernel[(heads,)](partial, means, divisor, parts, channels, MOST_PARTS)
    return means, divisor


@replayed()
def mean_loss_gradient(gradient: Tensor, valid: Tensor, divisor: Tensor) -> Tensor:
    """As in kernels/rows/reference.py."""
    heads, n = gradient.numel(), valid.shape[0]
    result = gradient.new_empty((*gradient.shape, n))
    if result.numel():
        _mean_gradient_kernel[(triton.cdiv(n, LOSSES), heads)](
            gradient, gradient.stride(0) if gradient.dim() else 0, valid.contiguous(), divisor, result, n, LOSSES
        )
    return result


def _tile(d: int) -> tuple[int, int]:
    """Return the rows of one program, and the channels that it reads at a time."""
    block_d = min(TILE, triton.next_power_of_2(max(d, 1)))
    return TILE // block_d, block_d


@launched
@triton.jit(do_not_specialize=["n"])
def _finite_kernel(
    x_ptr,
    mask_ptr,
    vectors_ptr,
    valid_ptr,
    n,
    d,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    dtype: tl.constexpr = vectors_ptr.dtype.element_ty
    bad = tl.zeros([BLOCK_N], tl.int32)
    for channel in range(0, d, BLOCK_D):
        x = load_tile(x_ptr + rows * d, inside, channel, d, 1, BLOCK_D, dtype)
        bad = tl.maximum(bad, tl.max(tl.where(tl.abs(x) < float("inf"), 0, 1), 1))
    valid = bad == 0
    if HAS_MASK:
        valid = valid & (tl.load(mask_ptr + rows, mask=inside, other=0) != 0)
    tl.store(valid_ptr + rows, valid, mask=inside)
    for channel in range(0, d, BLOCK_D):
        x = load_tile(x_ptr + rows * d, inside & valid, channel, d, 1, BLOCK_D, dtype)
        store_tile(vectors_ptr + rows * d, inside, channel, d, 1, x, BLOCK_D)


@launched
@triton.jit(do_not_specialize=["n"])
def _marked_kernel(
    codes_ptr,
    indices_ptr,
    valid_ptr,
    marked_ptr,
    numbers_ptr,
    n,
    d,
    COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    valid = tl.load(valid_ptr + rows, mask=inside, other=0) != 0
    dtype: tl.constexpr = codes_ptr.dtype.element_ty
    for channel in range(0, d, BLOCK_D):
        codes = load_tile(codes_ptr + rows * d, inside & valid, channel, d, 1, BLOCK_D, dtype)
        codes = tl.where(valid[:, None], codes, float("nan"))
        store_tile(marked_ptr + rows * d, inside, channel, d, 1, codes, BLOCK_D)
    for column in tl.static_range(COLUMNS):
        index = tl.load(indices_ptr + rows * COLUMNS + column, mask=inside & valid, other=-1)
        tl.store(numbers_ptr + rows * COLUMNS + column, index, mask=inside)


@launched
@triton.jit(do_not_specialize=["n"])
def _gradient_kernel(
    gradient_ptr,
    stride_n,
    stride_d,
    valid_ptr,
    result_ptr,
    n,
    d,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    valid = tl.load(valid_ptr + rows, mask=inside, other=0) != 0
    dtype: tl.constexpr = gradient_ptr.dtype.element_ty
    for channel in range(0, d, BLOCK_D):
        tile = load_tile(gradient_ptr + rows * stride_n, inside & valid, channel, d, stride_d, BLOCK_D, dtype)
        store_tile(result_ptr + rows * d, inside, channel, d, 1, tile, BLOCK_D)


@launched
@triton.jit(do_not_specialize=["n", "parts"])
def _partial_kernel(losses_ptr, valid_ptr, partial_ptr, n, parts, LOSSES: tl.constexpr):
    """The sum of a part of a head's losses, and the number of its rows that count."""
    part, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    total, count = tl.zeros([LOSSES], tl.float64), tl.zeros([LOSSES], tl.int64)
    for start in range(part * LOSSES, n, parts * LOSSES):
        rows = start + tl.arange(0, LOSSES)
        valid = tl.load(valid_ptr + rows, mask=rows < n, other=0) != 0
        total += converted(tl.load(losses_ptr + head * n + rows, mask=(rows < n) & valid, other=0), tl.float64)
        count += valid.to(tl.int64)
    tl.store(partial_ptr + head * 2 * parts + part, tl.sum(total))
    tl.store(partial_ptr + (head * 2 + 1) * parts + part, tl.sum(count).to(tl.float64))


@launched
@triton.jit(do_not_specialize=["parts"])
def _mean_kernel(partial_ptr, means_ptr, divisor_ptr, parts, channels, PARTS: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, PARTS)
    total = tl.sum(tl.load(partial_ptr + head * 2 * parts + places, mask=places < parts, other=0))
    count = tl.sum(tl.load(partial_ptr + (head * 2 + 1) * parts + places, mask=places < parts, other=0))
    divisor = tl.maximum(count.to(tl.int64), 1) * channels
    tl.store(means_ptr + head, converted(total / divisor.to(tl.float64), means_ptr.dtype.element_ty))
    tl.store(divisor_ptr, divisor, mask=head == 0)


@launched
@triton.jit(do_not_specialize=["n"])
def _mean_gradient_kernel(gradient_ptr, stride, valid_ptr, divisor_ptr, result_ptr, n, LOSSES: tl.constexpr):
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * LOSSES + tl.arange(0, LOSSES)
    valid = tl.load(valid_ptr + rows, mask=rows < n, other=0) != 0
    each = converted(tl.load(gradient_ptr + head * stride), tl.float64) / tl.load(divisor_ptr).to(tl.float64)
    each = converted(each, result_ptr.dtype.element_ty)
    tl.store(result_ptr + head * n + rows, tl.where(valid, each, 0), mask=rows < n)
