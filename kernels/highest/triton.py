"""The code with the largest score, in float64: `highest_score` of kernels/highest/README.md, equation (3)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.reference import relative_error

BLOCK_N, BLOCK_K, CHUNK = 32, 32, 16


@replayed()
def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Return argmax_k x·key_k + bias_k in float64, [N, D], [K, D], [K] → int64 [N]; lowest index on ties as in
    (3).

    Accepts any floating dtype, on the GPU. The codes are scored twice, since the highest score determines which
    scores count as equal to it.
    """
    # 16-bit values are widened here: on sm_80, Triton cannot compile float64 products of values loaded as 16 bits.
    dtype = compute_dtype(x, keys, bias)
    x, keys, bias = x.to(dtype), keys.to(dtype), bias.to(dtype)
    (n, d), size = x.shape, keys.shape[0]
    indices = torch.empty(n, dtype=torch.int64, device=x.device)
    largest_key = torch.linalg.vector_norm(keys, dim=-1, dtype=torch.float64).amax()
    largest_bias = bias.double().abs().amax()
    slack = 2 * relative_error(x) * torch.stack([largest_key, largest_bias])
    if n:
        _highest_kernel[(triton.cdiv(n, BLOCK_N),)](
            x.contiguous(),
            keys.contiguous(),
            bias.contiguous(),
            slack,
            indices,
            n,
            size,
            d,
            BLOCK_N,
            BLOCK_K,
            CHUNK,
            enable_fp_fusion=True,
        )
    return indices


@launched
@triton.jit(do_not_specialize=["n", "codebook_size"])
def _highest_kernel(
    x_ptr,
    keys_ptr,
    bias_ptr,
    slack_ptr,
    indices_ptr,
    n,
    codebook_size,
    d,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    highest = tl.full((BLOCK_N,), -float("inf"), tl.float64)
    for first in range(0, codebook_size, BLOCK_K):
        codes = first + tl.arange(0, BLOCK_K)
        scores, _ = _scores(x_ptr, keys_ptr, bias_ptr, rows, codes, n, codebook_size, d, BLOCK_N, BLOCK_K, CHUNK)
        highest = tl.maximum(highest, tl.max(tl.where(scores == scores, scores, -float("inf")), 1))
    index = tl.full((BLOCK_N,), 2**31 - 1, tl.int32)
    for first in range(0, codebook_size, BLOCK_K):
        codes = first + tl.arange(0, BLOCK_K)
        scores, square = _scores(
            x_ptr, keys_ptr, bias_ptr, rows, codes, n, codebook_size, d, BLOCK_N, BLOCK_K, CHUNK
        )
        slack = tl.sqrt(square) * tl.load(slack_ptr) + tl.load(slack_ptr + 1)
        near = (scores >= (highest - slack)[:, None]) & (codes < codebook_size)[None, :]
        index = tl.minimum(index, tl.min(tl.where(near, codes[None, :], 2**31 - 1), 1))
    index = tl.where(
        index < codebook_size, index, 0
    )  # if no score is a number, the first index, as in the reference
    tl.store(indices_ptr + rows, index.to(tl.int64), mask=rows < n)


@triton.jit
def _scores(
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
    """x·key + bias, [BLOCK_N, BLOCK_K] float64, −∞ outside the codebook; and ‖x‖² of the rows."""
    product, square = tl.zeros((BLOCK_N, BLOCK_K), tl.float64), tl.zeros((BLOCK_N,), tl.float64)
    codes = codes.to(tl.int64)
    for start in range(0, d, CHUNK):
        x = load_tile(x_ptr + rows * d, rows < n, start, d, 1, CHUNK)
        keys = load_tile(keys_ptr + codes * d, codes < codebook_size, start, d, 1, CHUNK)
        product = tl.dot(x, keys.T, product, input_precision="ieee", out_dtype=tl.float64)
        square += tl.sum(x * x, 1)
    bias = tl.load(bias_ptr + codes, mask=codes < codebook_size, other=-float("inf")).to(tl.float64)
    return product + bias[None, :], square
