"""The gradients of keys, bias and values: a kernel that passes over the rows for a block of codes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.triton.loads import store_tile
from quantizers.kernels.common.triton.noise import binary_gumbel_tile, code_order
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.soft.triton.forward import LOG2_E, sum_by_thread
from quantizers.kernels.soft.triton.pieces import add_product, load_pieces, product_tile, split
from quantizers.kernels.soft.triton.problem import Problem, Sizes, slope_of
from quantizers.kernels.soft.triton.tiles import code_tiles, has_warp_groups

PROGRAMS = 6  # of the code kernel per multiprocessor, which runs two or three at a time, unless rows are fewer


def code_gradients(problem: Problem, sizes: Sizes, noisy: bool) -> tuple[Tensor, Tensor, Tensor]:
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
        slope = slope_of(
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
