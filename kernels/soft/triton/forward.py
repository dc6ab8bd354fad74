"""Softmax-weighted codes under Gumbel noise, without an N × K matrix: (1) to (6) of kernels/soft/README.md.

A program processes a block of rows and passes over the codes once, as attention passes over its keys. It maintains
a running maximum and sums, and scales down the previous sums when the maximum rises.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.noise import LOG_2_OF_LOG_2, binary_gumbel_tile, code_order
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.soft.triton.pieces import (
    add_product,
    load_pieces,
    pack,
    product_tile,
    split,
)
from quantizers.kernels.soft.triton.tiles import forward_tiles, has_warp_groups

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(-1000.0)  # 2 to this power is zero
_NO_CODE = tl.constexpr(2**31 - 1)


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
    n, (size, width) = x.shape[0], values.shape
    value = torch.empty(n, width, dtype=torch.float32, device=x.device)
    indices = torch.empty(n, dtype=torch.int64, device=x.device)
    divergence = torch.empty(n, dtype=torch.float32, device=x.device)
    log_sums = torch.empty(n, 2, dtype=torch.float32, device=x.device)
    if n:
        packed, packed_bias = pack([x], [keys, values], bias)
        packed_x, packed_keys, packed_values = packed
        d, v = packed_x.shape[2], packed_values.shape[2]
        tiles = forward_tiles(d, v, has_warp_groups(x.device))
        _forward_kernel[(triton.cdiv(n, tiles.rows), v // tiles.out_width)](
            packed_x,
            packed_keys,
            packed_bias,
            packed_values,
            temperature,
            temperature if seed is None else seed,
            value,
            indices,
            divergence,
            log_sums,
            n,
            size,
            width,
            packed_x.shape[1],
            packed_keys.shape[1],
            NOISY=seed is not None,
            D=d,
            V=v,
            **tiles.constants(),
            **tiles.options(),
        )
    return value, indices, divergence, log_sums


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
    first_row = tl.program_id(0).to(tl.int64) * BLOCK_N
    rows, columns = first_row + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    channel = tl.program_id(1) * OUT_V
    order = code_order(columns)
    inverse = 1.0 / tl.load(temperature_ptr).to(tl.float32)
    if NOISY:
        seed = tl.load(seed_ptr)
    zero = tl.zeros((BLOCK_N, 4), tl.float32)
    # Logits are in units of ln 2. The maximum of the noisy ones serves both softmaxes: noise is at most 17.
    best = tl.full((BLOCK_N,), -float("inf"), tl.float32)
    # Four sums and samples of each row, of the columns that a thread holds.
    total, moment, noisy_total = zero, zero, zero
    leader, index = zero - float("inf"), tl.zeros((BLOCK_N, 4), tl.int32)
    value = tl.zeros((BLOCK_N, OUT_V), tl.float32)
    x = load_pieces(x_ptr, padded, first_row, 0, BLOCK_N, D, D_STEP)
    for first in range(0, codebook_size, BLOCK_K):
        keys = load_pieces(keys_ptr, padded_size, first, 0, BLOCK_K, D, D_STEP)
        logits = product_tile(
            x, x_ptr, padded, first_row, keys, keys_ptr, padded_size, first, D, D_STEP, BLOCK_N, BLOCK_K
        )
        logits = logits * LOG2_E + tl.load(bias_ptr + first + columns)[None, :]
        noisy = logits
        if NOISY:
            noisy += binary_gumbel_tile(seed, first_row, first, BLOCK_N, BLOCK_K, WARPS)
        highest = tl.max(tl.max(by_thread(noisy, BLOCK_N, BLOCK_K), 3), 1)
        equal = by_thread(noisy, BLOCK_N, BLOCK_K) == highest[:, None, :, None]
        orders = by_thread(tl.broadcast_to(order[None, :], (BLOCK_N, BLOCK_K)), BLOCK_N, BLOCK_K)
        code = tl.min(tl.min(tl.where(equal, orders, _NO_CODE), 3), 1)
        index = tl.where(highest > leader, first + code, index)
        leader = tl.maximum(leader, highest)
        higher = tl.maximum(best, tl.max(highest, 1))
        shift = _finite(higher)
        drop = best - shift
        best = higher
        fall = tl.exp2(drop * inverse)
        # One rounding near the maximum, where the exponent is small.
        y = tl.exp2(noisy * inverse - (shift * inverse)[:, None])
        noisy_total = noisy_total * fall[:, None] + sum_by_thread(y, BLOCK_N, BLOCK_K)
        total, moment = _add_moments(total, moment, drop, logits - shift[:, None], BLOCK_N, BLOCK_K)
        values = load_pieces(values_ptr, padded_size, first, channel, BLOCK_K, V, OUT_V)
        value = add_product(value * fall[:, None], split(y, values_ptr.dtype.element_ty), values)

    noisy_total, total, moment = tl.sum(noisy_total, 1), tl.sum(total, 1), tl.sum(moment, 1)
    channels = channel + tl.arange(0, OUT_V)
    places = value_ptr + rows[:, None] * width + channels[None, :]
    tl.store(places, value / noisy_total[:, None], mask=(rows < n)[:, None] & (channels < width)[None, :])
    if tl.program_id(1) == 0:
        first_best = tl.max(leader, 1)
        sample = tl.min(tl.where(leader == first_best[:, None], index, _NO_CODE), 1)
        sample = tl.where(sample == _NO_CODE, 0, sample)  # if no logit is a number
        log_total = tl.log2(total)
        entropy = LN_2 * (moment / total - log_total)
        log_sum = LN_2 * (_finite(best) + log_total)
        if NOISY:
            best -= LOG_2_OF_LOG_2
        noisy_log_sum = LN_2 * (_finite(best) * inverse + tl.log2(noisy_total))
        uniform = tl.log(tl.zeros((BLOCK_N,), tl.float32) + codebook_size)
        tl.store(indices_ptr + rows, sample.to(tl.int64), mask=rows < n)
        tl.store(divergence_ptr + rows, entropy + uniform, mask=rows < n)
        tl.store(log_sums_ptr + 2 * rows, log_sum, mask=rows < n)
        tl.store(log_sums_ptr + 2 * rows + 1, noisy_log_sum, mask=rows < n)


@triton.jit
def by_thread(tile, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """A tile as [BLOCK_N, BLOCK_K / 8, 4, 2]: the third axis numbers the threads that hold parts of a row."""
    return tl.reshape(tile, [BLOCK_N, BLOCK_K // 8, 4, 2])


@triton.jit
def sum_by_thread(tile, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Four sums of each row, [BLOCK_N, 4], without an exchange between threads."""
    return tl.sum(tl.sum(by_thread(tile, BLOCK_N, BLOCK_K), 3), 1)


@triton.jit
def _add_moments(total, moment, drop, distance, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Σ exp2(l − m) and Σ (l − m) exp2(l − m), [BLOCK_N, 4], of all logits l so far, including those of a tile.

    Args:
        drop: [BLOCK_N], by how much the shift m was lower before this tile, negated.
        distance: [BLOCK_N, BLOCK_K], l − m.
    """
    fall = tl.exp2(drop)[:, None]
    drop = tl.maximum(drop, NEVER)[:, None]  # −∞ times zero would be NaN, as below
    distance = tl.maximum(distance, NEVER, propagate_nan=tl.PropagateNan.ALL)
    weight = tl.exp2(distance)
    moment = fall * (moment + total * drop) + sum_by_thread(weight * distance, BLOCK_N, BLOCK_K)
    return total * fall + sum_by_thread(weight, BLOCK_N, BLOCK_K), moment


@triton.jit
def _finite(top):
    """A maximum that can be subtracted: zero if there is none yet (−∞ − −∞ would be NaN)."""
    return tl.where(top == -float("inf"), 0.0, top)
