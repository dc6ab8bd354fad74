"""The gradients of `soft_codes`. The probabilities are recomputed from the logits' saved log-sums.

With y and p the two softmaxes of a row, g and c the gradients of its value and its divergence KL, the gradient of
logit k is

    dl_k = y_k (g·value_k − g·value) / τ + c p_k (ln p_k − KL + ln K)

and the gradients of x, keys, bias and values are sums of dl_k and y_k over codes, or over rows. One kernel passes
over the codes for a block of rows, another over the rows for a block of codes. Each sum belongs to one program and
has a fixed order.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.triton.noise import gumbel_tile
from quantizers.kernels.common.triton.replay import launched, replayed
from quantizers.kernels.soft.triton.forward import (
    PRECISION,
    Tiles,
    check_dtypes,
    logit_tile,
    padded,
    product_tile,
    row_tiles,
)

PROGRAMS = 2  # of the code kernel per multiprocessor, if the codes alone give fewer


class Problem(NamedTuple):
    """The inputs of the forward, contiguous."""

    x: Tensor  # [N, D]
    keys: Tensor  # [K, D]
    bias: Tensor  # [K]
    values: Tensor  # [K, V]
    temperature: Tensor  # 0-d
    seed: Tensor  # 0-d int64; not read without noise

    def sizes(self) -> tuple[int, int, int, int]:
        """Return N, K, D and V."""
        return *self.x.shape[:1], *self.keys.shape, self.values.shape[1]


class Saved(NamedTuple):
    """What the backward knows beside the problem: results of the forward, and their gradients, contiguous."""

    value_gradient: Tensor  # [N, V]
    divergence_gradient: Tensor  # [N]
    value: Tensor  # [N, V]
    divergence: Tensor  # [N]
    log_sums: Tensor  # [N, 2]


@replayed()
def soft_codes_backward(
    value_gradient: Tensor,
    divergence_gradient: Tensor,
    x: Tensor,
    keys: Tensor,
    bias: Tensor,
    values: Tensor,
    temperature: Tensor,
    seed: Tensor | None,
    value: Tensor,
    divergence: Tensor,
    log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, keys, bias and values for those of value [N, V] and divergence [N], in their
    dtypes.

    The last three arguments are outputs of `soft_codes`. Shapes and dtypes are as for `soft_codes`. The result is
    bit-equal from run to run on one kind of device, whose size determines the split of the rows.

    Raises: TypeError for float64.
    """
    check_dtypes(x=x, keys=keys, bias=bias, values=values)
    if x.shape[0] == 0:
        return torch.empty_like(x), torch.zeros_like(keys), torch.zeros_like(bias), torch.zeros_like(values)
    noisy = seed is not None
    inputs = (x, keys, bias, values, temperature, temperature if seed is None else seed)
    problem = Problem(*(tensor.contiguous() for tensor in inputs))
    results = (value_gradient, divergence_gradient, value, divergence, log_sums)
    saved = Saved(*(tensor.contiguous() for tensor in results))
    x_gradient, agreement = _rows(problem, saved, noisy)
    sums = _codes(problem, saved, agreement, noisy)
    keys_gradient, bias_gradient, values_gradient = (
        total.to(tensor.dtype) for total, tensor in zip(sums, (keys, bias, values), strict=True)
    )
    return x_gradient, keys_gradient, bias_gradient, values_gradient


def _rows(problem: Problem, saved: Saved, noisy: bool) -> tuple[Tensor, Tensor]:
    """Return the gradient of x [N, D], and g·value [N]."""
    n, _, d, _ = problem.sizes()
    tiles = row_tiles(d)
    gradient, agreement = torch.empty_like(problem.x), torch.empty(n, device=problem.x.device)
    _rows_kernel[(triton.cdiv(n, tiles.rows), triton.cdiv(d, tiles.out))](
        problem,
        saved,
        gradient,
        agreement,
        *problem.sizes(),
        noisy,
        tiles.rows,
        tiles.codes,
        tiles.chunk,
        tiles.out,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,
    )
    return gradient, agreement


def _codes(problem: Problem, saved: Saved, agreement: Tensor, noisy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of keys, bias and values, float32."""
    n, size, d, width = problem.sizes()
    device = problem.x.device
    tiles = code_tiles(max(d, width))
    blocks, outs = triton.cdiv(size, tiles.codes), triton.cdiv(max(d, width), tiles.out)
    row_blocks = triton.cdiv(n, tiles.rows)
    splits = max(1, min(PROGRAMS * device_properties(device).multiprocessors // (blocks * outs), row_blocks))
    span = triton.cdiv(row_blocks, splits) * tiles.rows
    splits = triton.cdiv(n, span)
    keys = torch.empty(splits, size, d, device=device)
    bias = torch.empty(splits, size, device=device)
    codes = torch.empty(splits, size, width, device=device)
    _codes_kernel[(blocks, splits, outs)](
        problem,
        saved,
        agreement,
        keys,
        bias,
        codes,
        *problem.sizes(),
        span,
        noisy,
        tiles.rows,
        tiles.codes,
        tiles.chunk,
        tiles.out,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,
    )
    return keys.sum(0), bias.sum(0), codes.sum(0)


def code_tiles(out: int) -> Tiles:
    """Return tiles for the kernel over codes, by the larger of D and V: it holds `out` channels of both
    results."""
    out = min(128, padded(out))
    return Tiles(rows=16, codes=64 if out < 64 else 32, chunk=16, out=out, warps=8, stages=2)


@launched
@triton.jit(do_not_specialize=["n", "codebook_size"])
def _rows_kernel(
    problem,
    saved,
    x_gradient_ptr,
    agreement_ptr,
    n,
    codebook_size,
    d,
    width,
    NOISY: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
    OUT: tl.constexpr,
):
    """The gradient of a block of rows, for OUT of its channels."""
    sizes = (n, codebook_size, d, width)
    keys_ptr = problem[1]
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = tl.program_id(1) * OUT
    agreement = _row_dots(saved[0], saved[2], rows, n, width, BLOCK_N, CHUNK)
    if tl.program_id(1) == 0:
        tl.store(agreement_ptr + rows, agreement, mask=rows < n)
    result = tl.zeros((BLOCK_N, OUT), tl.float32)
    for first in range(0, codebook_size, BLOCK_K):
        _, slope = _logit_gradient(
            problem,
            saved,
            agreement,
            rows,
            first,
            sizes,
            NOISY,
            BLOCK_N,
            BLOCK_K,
            CHUNK,
        )
        codes = (first + tl.arange(0, BLOCK_K)).to(tl.int64)
        keys = load_tile(keys_ptr + codes * d, codes < codebook_size, channel, d, 1, OUT, tl.float32)
        result = tl.dot(slope, keys, result, input_precision=PRECISION)
    store_tile(x_gradient_ptr + rows * d, rows < n, channel, d, 1, result, OUT)


@launched
@triton.jit(do_not_specialize=["n", "codebook_size", "span"])
def _codes_kernel(
    problem,
    saved,
    agreement_ptr,
    keys_gradient_ptr,
    bias_gradient_ptr,
    values_gradient_ptr,
    n,
    codebook_size,
    d,
    width,
    span,
    NOISY: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
    OUT: tl.constexpr,
):
    """The contribution of `span` rows to the gradients of a block of codes: OUT channels of key and of value."""
    sizes = (n, codebook_size, d, width)
    x_ptr, value_gradient_ptr = problem[0], saved[0]
    first, part = tl.program_id(0) * BLOCK_K, tl.program_id(1).to(tl.int64)
    codes, channel = first + tl.arange(0, BLOCK_K), tl.program_id(2) * OUT
    keys, values = tl.zeros((BLOCK_K, OUT), tl.float32), tl.zeros((BLOCK_K, OUT), tl.float32)
    bias = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(part * span, tl.minimum((part + 1) * span, n), BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N).to(tl.int64)
        y, slope = _logit_gradient(
            problem,
            saved,
            tl.load(agreement_ptr + rows, mask=rows < n, other=0.0),
            rows,
            first,
            sizes,
            NOISY,
            BLOCK_N,
            BLOCK_K,
            CHUNK,
        )
        bias += tl.sum(slope, 0)
        x = load_tile(x_ptr + rows * d, rows < n, channel, d, 1, OUT, tl.float32)
        g = load_tile(value_gradient_ptr + rows * width, rows < n, channel, width, 1, OUT, tl.float32)
        keys = tl.dot(tl.trans(slope), x, keys, input_precision=PRECISION)
        values = tl.dot(tl.trans(y), g, values, input_precision=PRECISION)
    mask = codes < codebook_size
    codes = part * codebook_size + codes
    store_tile(keys_gradient_ptr + codes * d, mask, channel, d, 1, keys, OUT)
    store_tile(values_gradient_ptr + codes * width, mask, channel, width, 1, values, OUT)
    if tl.program_id(2) == 0:
        tl.store(bias_gradient_ptr + codes, bias, mask=mask)


@triton.jit
def _logit_gradient(
    problem,
    saved,
    agreement,
    rows,
    first,
    sizes,
    NOISY: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """y and dl of a tile, both zero outside of it; `agreement` is g·value of the rows."""
    x_ptr, keys_ptr, bias_ptr, values_ptr, temperature_ptr, seed_ptr = problem
    value_gradient_ptr, divergence_gradient_ptr, _, divergence_ptr, log_sums_ptr = saved
    n, codebook_size, d, width = sizes
    codes = first + tl.arange(0, BLOCK_K)
    inverse = 1.0 / tl.load(temperature_ptr).to(tl.float32)
    logits = logit_tile(x_ptr, keys_ptr, bias_ptr, rows, codes, n, codebook_size, d, BLOCK_N, BLOCK_K, CHUNK)
    # A row beyond the last has log-sums +∞, hence no probability.
    log_sum = tl.load(log_sums_ptr + 2 * rows, mask=rows < n, other=float("inf"))
    noisy_log_sum = tl.load(log_sums_ptr + 2 * rows + 1, mask=rows < n, other=float("inf"))
    divergence = tl.load(divergence_ptr + rows, mask=rows < n, other=0.0)
    divergence -= tl.log(tl.zeros((BLOCK_N,), tl.float32) + codebook_size)
    weight = tl.load(divergence_gradient_ptr + rows, mask=rows < n, other=0.0).to(tl.float32)

    log_p = logits - log_sum[:, None]
    p = tl.exp(log_p)
    slope = weight[:, None] * p * tl.where(p > 0, log_p - divergence[:, None], 0.0)  # not zero times −∞
    if NOISY:
        logits += gumbel_tile(tl.load(seed_ptr), rows, first, BLOCK_N, BLOCK_K)
    y = tl.exp(logits * inverse - noisy_log_sum[:, None])
    gain = product_tile(
        value_gradient_ptr, values_ptr, rows, codes, n, codebook_size, width, BLOCK_N, BLOCK_K, CHUNK
    )
    return y, slope + y * (gain - agreement[:, None]) * inverse


@triton.jit
def _row_dots(a_ptr, b_ptr, rows, n, width, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr):
    """Σ a·b of each row, [BLOCK_N] float32."""
    total = tl.zeros((BLOCK_N, CHUNK), tl.float32)
    for start in range(0, width, CHUNK):
        a = load_tile(a_ptr + rows * width, rows < n, start, width, 1, CHUNK, tl.float32)
        b = load_tile(b_ptr + rows * width, rows < n, start, width, 1, CHUNK, tl.float32)
        total += a * b
    return tl.sum(total, 1)
