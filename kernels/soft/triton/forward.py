"""Softmax-weighted codes under Gumbel noise, without an N × K matrix: (1) to (6) of kernels/soft/README.md.

A program processes a block of rows and passes over the codes once, as attention passes over its keys. It maintains
running maxima and sums, and scales down the previous sums when a maximum rises.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.triton.noise import gumbel_tile
from quantizers.kernels.common.triton.replay import launched, replayed

PRECISION = tl.constexpr("tf32x3")  # of matrix products: about float32's; `ieee` would not use matrix units


@replayed()
def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return softmax-weighted codes, a sample, and the divergence from the uniform distribution, computed in
    float32.

    Args, as float32, bfloat16 or float16, on the GPU:
        x: [N, D] vectors.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        values: [K, V] codes.
        temperature: 0-d, > 0.
        seed: 0-d int64, of `gumbel_noise` with the row's number. None: no noise.

    Returns:
        value: [N, V] float32, Σ_k y_k value_k with y = softmax((logits + noise) / temperature).
        indices: [N] int64, argmax of the noisy logits, lowest on ties: a sample of softmax(logits).
        divergence: [N] float32 in nats, KL(softmax(logits) ‖ uniform).
        log_sums: [N, 2] float32, ln Σ exp(logits) and ln Σ exp((logits + noise) / temperature).

    Raises: TypeError for float64.
    """
    check_dtypes(x=x, keys=keys, bias=bias, values=values)
    (n, d), (size, width) = x.shape, values.shape
    tiles = row_tiles(width)
    value = torch.empty(n, width, device=x.device)
    indices = torch.empty(n, dtype=torch.int64, device=x.device)
    divergence, log_sums = torch.empty(n, device=x.device), torch.empty(n, 2, device=x.device)
    if n:
        _forward_kernel[(triton.cdiv(n, tiles.rows), triton.cdiv(width, tiles.out))](
            x.contiguous(),
            keys.contiguous(),
            bias.contiguous(),
            values.contiguous(),
            temperature,
            temperature if seed is None else seed,
            value,
            indices,
            divergence,
            log_sums,
            n,
            size,
            d,
            width,
            seed is not None,
            tiles.rows,
            tiles.codes,
            tiles.chunk,
            tiles.out,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            enable_fp_fusion=True,
        )
    return value, indices, divergence, log_sums


class Tiles(NamedTuple):
    """Tile sizes of one program of a soft kernel."""

    rows: int
    codes: int
    chunk: int  # channels per step of a product over channels
    out: int  # channels of the result that stay in registers; other programs compute further ones
    warps: int
    stages: int


def row_tiles(out: int) -> Tiles:
    """Return tiles for a kernel that passes over the codes for a block of rows, by the number of channels of its
    result.

    The limit is the number of registers: tf32x3 splits each operand of a product in two. With more than 32
    channels of the result, only 16 codes would fit. For some such tiles ptxas 12.8 makes code for sm_90 that takes
    the address of an operand from a register that nothing has set, and one of the three products is lost.
    """
    return Tiles(rows=64, codes=32, chunk=16, out=min(32, padded(out)), warps=8, stages=2)


def padded(channels: int) -> int:
    """Return the power of two, at least 16, that matrix units require."""
    return max(16, int(triton.next_power_of_2(channels)))


def check_dtypes(**tensors: Tensor) -> None:
    """Raises: TypeError if a tensor is float64."""
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float64:
            raise TypeError(
                f"{name} is float64, which is not supported by the triton implementation of soft codes"
            )


@launched
@triton.jit(do_not_specialize=["n", "codebook_size"])
def _forward_kernel(
    x_ptr,
    keys_ptr,
    bias_ptr,
    values_ptr,
    temperature_ptr,
    seed_ptr,
    value_ptr,
    indices_ptr,
    divergence_ptr,
    log_sums_ptr,
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
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = tl.program_id(1) * OUT
    inverse = 1.0 / tl.load(temperature_ptr).to(tl.float32)
    zero = tl.zeros((BLOCK_N,), tl.float32)
    top, total, moment = zero - float("inf"), zero, zero  # of the logits
    best, noisy_total = zero - float("inf"), zero  # of the noisy logits
    index = tl.zeros((BLOCK_N,), tl.int32)
    value = tl.zeros((BLOCK_N, OUT), tl.float32)
    for first in range(0, codebook_size, BLOCK_K):
        codes = first + tl.arange(0, BLOCK_K)
        logits = logit_tile(x_ptr, keys_ptr, bias_ptr, rows, codes, n, codebook_size, d, BLOCK_N, BLOCK_K, CHUNK)
        top, total, moment = _add_moments(top, total, moment, logits)
        if NOISY:
            logits += gumbel_tile(tl.load(seed_ptr), rows, first, BLOCK_N, BLOCK_K)
        higher, index = _highest(best, index, logits, codes)
        shift = _finite(higher)
        # The difference is scaled instead of the logits, which is more accurate near the maximum.
        fall, y = tl.exp((best - shift) * inverse), tl.exp((logits - shift[:, None]) * inverse)
        noisy_total = noisy_total * fall + tl.sum(y, 1)
        best = higher
        tile_ptr = values_ptr + codes.to(tl.int64) * width
        tile = load_tile(tile_ptr, codes < codebook_size, channel, width, 1, OUT, tl.float32)
        value = tl.dot(y, tile, value * fall[:, None], input_precision=PRECISION)

    store_tile(value_ptr + rows * width, rows < n, channel, width, 1, value / noisy_total[:, None], OUT)
    if tl.program_id(1) == 0:
        log_total = tl.log(total)
        tl.store(indices_ptr + rows, index.to(tl.int64), mask=rows < n)
        tl.store(divergence_ptr + rows, moment / total - log_total + tl.log(zero + codebook_size), mask=rows < n)
        tl.store(log_sums_ptr + 2 * rows, _finite(top) + log_total, mask=rows < n)
        tl.store(log_sums_ptr + 2 * rows + 1, _finite(best) * inverse + tl.log(noisy_total), mask=rows < n)


@triton.jit
def logit_tile(
    x_ptr,
    keys_ptr,
    bias_ptr,
    rows,
    codes,
    n,
    codebook_size,
    d,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """x·key + bias, [BLOCK_N, BLOCK_K] float32; −∞ outside the codebook."""
    bias = tl.load(bias_ptr + codes, mask=codes < codebook_size, other=-float("inf")).to(tl.float32)
    return product_tile(x_ptr, keys_ptr, rows, codes, n, codebook_size, d, BLOCK_N, BLOCK_K, CHUNK) + bias[None, :]


@triton.jit
def product_tile(
    a_ptr,
    b_ptr,
    rows,
    codes,
    n,
    codebook_size,
    width,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """a[rows] · b[codes]ᵀ, [BLOCK_N, BLOCK_K] float32, of matrices with `width` columns; zero outside of them."""
    product = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    codes = codes.to(tl.int64)
    for start in range(0, width, CHUNK):
        a = load_tile(a_ptr + rows * width, rows < n, start, width, 1, CHUNK, tl.float32)
        b = load_tile(b_ptr + codes * width, codes < codebook_size, start, width, 1, CHUNK, tl.float32)
        product = tl.dot(a, b.T, product, input_precision=PRECISION)
    return product


@triton.jit
def _add_moments(top, total, moment, logits):
    """Maximum m, Σ exp(l − m) and Σ (l − m) exp(l − m) of all logits l so far, including those of a tile."""
    higher = tl.maximum(top, tl.max(tl.where(logits == logits, logits, -float("inf")), 1))
    shift = _finite(higher)
    drop = tl.where(total > 0, top - shift, 0.0)  # otherwise −∞ times zero
    fall = tl.exp(top - shift)
    distance = logits - shift[:, None]
    weight = tl.exp(distance)
    moment = fall * (moment + total * drop) + tl.sum(weight * tl.where(weight > 0, distance, 0.0), 1)
    return higher, total * fall + tl.sum(weight, 1), moment


@triton.jit
def _highest(best, index, logits, codes):
    """The highest logit so far and its code, lowest on ties; NaN counts as the highest, as in torch.argmax."""
    logits = tl.where(logits == logits, logits, float("inf"))
    highest = tl.max(logits, 1)
    code = tl.min(tl.where(logits == highest[:, None], codes[None, :], 2**31 - 1), 1)
    return tl.maximum(best, highest), tl.where(highest > best, code, index)


@triton.jit
def _finite(top):
    """A maximum that can be subtracted: zero if there is none yet (−∞ − −∞ would be NaN)."""
    return tl.where(top == -float("inf"), 0.0, top)
