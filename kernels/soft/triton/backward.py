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
from quantizers.kernels.common.triton.noise import LOG_2_OF_LOG_2, binary_gumbel_tile, code_order
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.soft.triton.forward import LN_2, LOG2_E, NEVER, check_dtypes, sum_by_thread
from quantizers.kernels.soft.triton.pieces import (
    add_product,
    load_pieces,
    pack,
    product_tile,
    split,
)
from quantizers.kernels.soft.triton.tiles import code_tiles, has_warp_groups, rows_tiles

PROGRAMS = 6  # of the code kernel per multiprocessor, which runs two or three at a time, unless rows are fewer
TERMS = 5
_CHUNK = tl.constexpr(16)  # channels of a step of `_row_dots`


class Problem(NamedTuple):
    """What both kernels read."""

    x: Tensor  # [3, R, D] pieces
    keys: Tensor  # [3, S, D] pieces
    bias: Tensor  # [S] times log2 e
    values: Tensor  # [3, S, V] pieces
    value_gradient: Tensor  # [3, R, V] pieces
    temperature: Tensor
    seed: Tensor  # int64; not read without noise
    terms: Tensor  # [5, R] float32 of rows: see `_row_terms`


class Saved(NamedTuple):
    """Results of the forward and their gradients, contiguous."""

    value_gradient: Tensor  # [N, V]
    divergence_gradient: Tensor  # [N]
    value: Tensor  # [N, V]
    divergence: Tensor  # [N]
    log_sums: Tensor  # [N, 2]


class Sizes(NamedTuple):
    """Sizes of the problem."""

    n: int
    codebook_size: int
    d: int
    width: int
    padded: int  # R
    padded_size: int  # S


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
    n, d = x.shape
    if n == 0:
        return torch.empty_like(x), torch.zeros_like(keys), torch.zeros_like(bias), torch.zeros_like(values)
    results = (value_gradient, divergence_gradient, value, divergence, log_sums)
    saved = Saved(*(tensor.contiguous() for tensor in results))
    packed, packed_bias = pack([x, saved.value_gradient], [keys, values], bias)
    packed_x, packed_gradient, packed_keys, packed_values = packed
    sizes = Sizes(n, keys.shape[0], d, values.shape[1], packed_x.shape[1], packed_keys.shape[1])
    problem = Problem(
        packed_x,
        packed_keys,
        packed_bias,
        packed_values,
        packed_gradient,
        temperature,
        temperature if seed is None else seed,
        torch.empty(TERMS, sizes.padded, dtype=torch.float32, device=x.device),
    )
    noisy = seed is not None
    x_gradient = torch.empty(n, d, dtype=x.dtype, device=x.device)
    _rows(problem, saved, sizes, noisy, x_gradient)
    sums = _codes(problem, sizes, noisy)
    keys_gradient, bias_gradient, values_gradient = (
        total.to(tensor.dtype) for total, tensor in zip(sums, (keys, bias, values), strict=True)
    )
    return x_gradient, keys_gradient, bias_gradient, values_gradient


def _rows(problem: Problem, saved: Saved, sizes: Sizes, noisy: bool, x_gradient: Tensor) -> None:
    """Store the gradient of x [N, D], and the terms of rows."""
    d, width = problem.x.shape[2], problem.values.shape[2]
    tiles = rows_tiles(d, width, has_warp_groups(problem.x.device))
    _rows_kernel[(triton.cdiv(sizes.n, tiles.rows), d // tiles.out_d)](
        problem,
        saved,
        x_gradient,
        *sizes,
        NOISY=noisy,
        D=d,
        V=width,
        **tiles.constants(),
        **tiles.options(),
    )


def _codes(problem: Problem, sizes: Sizes, noisy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of keys, bias and values, float32."""
    n, size, d, width, *_ = sizes
    device = problem.x.device
    packed_d, packed_width = problem.x.shape[2], problem.values.shape[2]
    tiles = code_tiles(packed_d, packed_width, has_warp_groups(device))
    blocks = triton.cdiv(size, tiles.codes)
    outs = max(packed_d // tiles.out_d, packed_width // tiles.out_width)
    row_blocks = triton.cdiv(n, tiles.rows)
    splits = max(1, min(PROGRAMS * device_properties(device).multiprocessors // (blocks * outs), row_blocks))
    span = triton.cdiv(row_blocks, splits) * tiles.rows
    splits = triton.cdiv(n, span)
    sums = torch.empty(splits, size * (d + 1 + width), dtype=torch.float32, device=device)
    _codes_kernel[(blocks, splits, outs)](
        problem,
        sums,
        *sizes,
        span,
        NOISY=noisy,
        D=packed_d,
        V=packed_width,
        **tiles.constants(),
        **tiles.options(),
    )
    total = sums.sum(0) if splits > 1 else sums[0]
    # Copies, since the results of an operation must not share memory.
    split_copy = torch.ops.aten.split_with_sizes_copy.default
    keys, values, bias = split_copy(total, [size * d, size * width, size])
    return keys.view(size, d), bias, values.view(size, width)


@launched
@triton.jit(do_not_specialize=["n", "codebook_size"])
def _rows_kernel(
    problem,
    saved,
    x_gradient_ptr,
    n,
    codebook_size,
    d,
    width,
    padded,
    padded_size,
    NOISY: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    D_STEP: tl.constexpr,
    V_STEP: tl.constexpr,
    OUT_D: tl.constexpr,
    OUT_V: tl.constexpr,
    WARPS: tl.constexpr,
):
    """The gradient of a block of rows, for OUT_D of its channels."""
    x_ptr, keys_ptr, bias_ptr, values_ptr, gradient_ptr, temperature_ptr, seed_ptr, terms_ptr = problem
    first_row = tl.program_id(0).to(tl.int64) * BLOCK_N
    rows, columns = first_row + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    channel = tl.program_id(1) * OUT_D
    inverse = 1.0 / tl.load(temperature_ptr).to(tl.float32)
    terms = _row_terms(saved, rows, n, codebook_size, width, inverse, NOISY, BLOCK_N)
    if tl.program_id(1) == 0:
        for i in tl.static_range(5):
            tl.store(terms_ptr + i * padded + rows, terms[i])
    log_sum, noisy_log_sum, weight, rest, agreement = terms
    if NOISY:
        seed = tl.load(seed_ptr)
    x = load_pieces(x_ptr, padded, first_row, 0, BLOCK_N, D, D_STEP)
    g = load_pieces(gradient_ptr, padded, first_row, 0, BLOCK_N, V, V_STEP)
    result = tl.zeros((BLOCK_N, OUT_D), tl.float32)
    for first in range(0, codebook_size, BLOCK_K):
        keys = load_pieces(keys_ptr, padded_size, first, 0, BLOCK_K, D, D_STEP)
        logits = product_tile(
            x, x_ptr, padded, first_row, keys, keys_ptr, padded_size, first, D, D_STEP, BLOCK_N, BLOCK_K
        )
        logits = logits * LOG2_E + tl.load(bias_ptr + first + columns)[None, :]
        values = load_pieces(values_ptr, padded_size, first, 0, BLOCK_K, V, V_STEP)
        gain = product_tile(
            g, gradient_ptr, padded, first_row, values, values_ptr, padded_size, first,
            V, V_STEP, BLOCK_N, BLOCK_K,
        )  # fmt: skip
        noisy = logits
        if NOISY:
            noisy += binary_gumbel_tile(seed, first_row, first, BLOCK_N, BLOCK_K, WARPS)
        y = tl.exp2(noisy * inverse - noisy_log_sum[:, None])
        slope = _slope(
            logits, y, gain * inverse + agreement[:, None], log_sum[:, None], weight[:, None], rest[:, None]
        )
        if OUT_D < D or D_STEP < D:
            keys = load_pieces(keys_ptr, padded_size, first, channel, BLOCK_K, D, OUT_D)
        result = add_product(result, split(slope, keys_ptr.dtype.element_ty), keys)
    store_tile(x_gradient_ptr + rows * d, rows < n, channel, d, 1, result, OUT_D)


@launched
@triton.jit(do_not_specialize=["n", "codebook_size", "span"])
def _codes_kernel(
    problem,
    sums_ptr,
    n,
    codebook_size,
    d,
    width,
    padded,
    padded_size,
    span,
    NOISY: tl.constexpr,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    D_STEP: tl.constexpr,
    V_STEP: tl.constexpr,
    OUT_D: tl.constexpr,
    OUT_V: tl.constexpr,
    WARPS: tl.constexpr,
):
    """The sums over `span` rows for a block of codes: OUT_D channels of keys and OUT_V of values."""
    x_ptr, keys_ptr, bias_ptr, values_ptr, gradient_ptr, temperature_ptr, seed_ptr, terms_ptr = problem
    first, part = tl.program_id(0) * BLOCK_K, tl.program_id(1).to(tl.int64)
    # Programs beyond the last channels of the narrower matrix repeat these, and store nothing of it.
    out_d, out_v = tl.minimum(tl.program_id(2), D // OUT_D - 1), tl.minimum(tl.program_id(2), V // OUT_V - 1)
    inverse = 1.0 / tl.load(temperature_ptr).to(tl.float32)
    keys = load_pieces(keys_ptr, padded_size, first, 0, BLOCK_K, D, D_STEP)
    values = load_pieces(values_ptr, padded_size, first, 0, BLOCK_K, V, V_STEP)
    bias = tl.load(bias_ptr + first + tl.arange(0, BLOCK_K))
    key_sums, value_sums = tl.zeros((BLOCK_K, OUT_D), tl.float32), tl.zeros((BLOCK_K, OUT_V), tl.float32)
    if NOISY:
        seed = tl.load(seed_ptr)
    bias_sums = tl.zeros((BLOCK_K, 4), tl.float32)
    for first_row in range(part * span, tl.minimum((part + 1) * span, n), BLOCK_N):
        first_row = tl.multiple_of(first_row, BLOCK_N)
        row = terms_ptr + first_row + tl.arange(0, BLOCK_N)
        x = load_pieces(x_ptr, padded, first_row, 0, BLOCK_N, D, D_STEP)
        logits = product_tile(
            keys, keys_ptr, padded_size, first, x, x_ptr, padded, first_row, D, D_STEP, BLOCK_K, BLOCK_N
        )
        logits = logits * LOG2_E + bias[:, None]
        noisy = logits
        if NOISY:
            noisy += tl.trans(binary_gumbel_tile(seed, first_row, first, BLOCK_N, BLOCK_K, WARPS))
        y = tl.exp2(noisy * inverse - tl.load(row + padded)[None, :])
        g = load_pieces(gradient_ptr, padded, first_row, 0, BLOCK_N, V, V_STEP)
        sums_g = g
        if OUT_V < V or V_STEP < V:
            sums_g = load_pieces(gradient_ptr, padded, first_row, out_v * OUT_V, BLOCK_N, V, OUT_V)
        # Before the rest of dl, so that the registers of y's pieces serve dl's.
        value_sums = add_product(value_sums, split(y, x_ptr.dtype.element_ty), sums_g)
        gain = product_tile(
            values, values_ptr, padded_size, first, g, gradient_ptr, padded, first_row,
            V, V_STEP, BLOCK_K, BLOCK_N,
        )  # fmt: skip
        slope = _slope(
            logits,
            y,
            gain * inverse + tl.load(row + 4 * padded)[None, :],
            tl.load(row)[None, :],
            tl.load(row + 2 * padded)[None, :],
            tl.load(row + 3 * padded)[None, :],
        )
        bias_sums += sum_by_thread(slope, BLOCK_K, BLOCK_N)
        if OUT_D < D or D_STEP < D:
            x = load_pieces(x_ptr, padded, first_row, out_d * OUT_D, BLOCK_N, D, OUT_D)
        key_sums = add_product(key_sums, split(slope, x_ptr.dtype.element_ty), x)
    codes = first + code_order(tl.arange(0, BLOCK_K))
    mask, codes = codes < codebook_size, codes.to(tl.int64)
    sums_ptr += part * codebook_size * (d + 1 + width)
    values_ptr, bias_ptr = (
        sums_ptr + codebook_size.to(tl.int64) * d,
        sums_ptr + codebook_size.to(tl.int64) * (d + width),
    )
    store_tile(sums_ptr + codes * d, mask & (out_d == tl.program_id(2)), out_d * OUT_D, d, 1, key_sums, OUT_D)
    store_tile(
        values_ptr + codes * width, mask & (out_v == tl.program_id(2)), out_v * OUT_V, width, 1, value_sums, OUT_V
    )
    if tl.program_id(2) == 0:
        tl.store(bias_ptr + codes, tl.sum(bias_sums, 1), mask=mask)


@triton.jit
def _row_terms(saved, rows, n, codebook_size, width, inverse, NOISY: tl.constexpr, BLOCK_N: tl.constexpr):
    """What `_logit_gradient` needs of rows, five times [BLOCK_N]; the first two are +∞ beyond the last row, which
    hence has no probability.

    They are the log-sums in units of ln 2, the second for noise with its constant; c ln 2 and c (ln K − KL); and
    −g·value / τ.
    """
    gradient_ptr, weight_ptr, value_ptr, divergence_ptr, log_sums_ptr = saved
    inside = rows < n
    log_sum = tl.load(log_sums_ptr + 2 * rows, mask=inside, other=float("inf")) * LOG2_E
    noisy_log_sum = tl.load(log_sums_ptr + 2 * rows + 1, mask=inside, other=float("inf")) * LOG2_E
    if NOISY:
        noisy_log_sum += LOG_2_OF_LOG_2 * inverse
    uniform = tl.log(tl.zeros((BLOCK_N,), tl.float32) + codebook_size)
    weight = tl.load(weight_ptr + rows, mask=inside, other=0.0).to(tl.float32)
    rest = uniform - tl.load(divergence_ptr + rows, mask=inside, other=0.0)
    agreement = _row_dots(gradient_ptr, value_ptr, rows, n, width, BLOCK_N)
    return log_sum, noisy_log_sum, weight * LN_2, weight * rest, -agreement * inverse


@triton.jit
def _slope(logits, y, gain, log_sum, weight, rest):
    """dl of a tile, zero outside of it.

    Args:
        logits: in units of ln 2.
        gain: (g·value_k − g·value) / τ.
        log_sum, weight, rest: terms of the rows, from `_row_terms`.
    """
    log_p = tl.maximum(logits - log_sum, NEVER, propagate_nan=tl.PropagateNan.ALL)  # not −∞ times zero
    return tl.exp2(log_p) * (log_p * weight + rest) + y * gain


@triton.jit
def _row_dots(a_ptr, b_ptr, rows, n, width, BLOCK_N: tl.constexpr):
    """Σ a·b of each row, [BLOCK_N] float32."""
    total = tl.zeros((BLOCK_N, _CHUNK), tl.float32)
    for start in range(0, width, _CHUNK):
        a = load_tile(a_ptr + rows * width, rows < n, start, width, 1, _CHUNK, tl.float32)
        b = load_tile(b_ptr + rows * width, rows < n, start, width, 1, _CHUNK, tl.float32)
        total += a * b
    return tl.sum(total, 1)
