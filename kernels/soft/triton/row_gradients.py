"""The gradient of x: a kernel that passes over the codes for a block of rows."""

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile, store_tile
from quantizers.kernels.common.triton.noise import LOG_2_OF_LOG_2, binary_gumbel_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.soft.triton.forward import LN_2, LOG2_E
from quantizers.kernels.soft.triton.pieces import add_product, load_pieces, product_tile, split
from quantizers.kernels.soft.triton.problem import Problem, Saved, Sizes, slope_of
from quantizers.kernels.soft.triton.tiles import has_warp_groups, rows_tiles

_CHUNK = tl.constexpr(16)  # channels of a step of `_row_dots`


def row_gradients(problem: Problem, saved: Saved, sizes: Sizes, noisy: bool, x_gradient: Tensor) -> None:
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
        slope = slope_of(
            logits, y, gain * inverse + agreement[:, None], log_sum[:, None], weight[:, None], rest[:, None]
        )
        if OUT_D < D or D_STEP < D:
            keys = load_pieces(keys_ptr, padded_size, first, channel, BLOCK_K, D, OUT_D)
        result = add_product(result, split(slope, keys_ptr.dtype.element_ty), keys)
    store_tile(x_gradient_ptr + rows * d, rows < n, channel, d, 1, result, OUT_D)


@triton.jit
def _row_terms(saved, rows, n, codebook_size, width, inverse, NOISY: tl.constexpr, BLOCK_N: tl.constexpr):
    """What both kernels need of rows, five times [BLOCK_N]; the first two are +∞ beyond the last row, which
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
def _row_dots(a_ptr, b_ptr, rows, n, width, BLOCK_N: tl.constexpr):
    """Σ a·b of each row, [BLOCK_N] float32."""
    total = tl.zeros((BLOCK_N, _CHUNK), tl.float32)
    for start in range(0, width, _CHUNK):
        a = load_tile(a_ptr + rows * width, rows < n, start, width, 1, _CHUNK, tl.float32)
        b = load_tile(b_ptr + rows * width, rows < n, start, width, 1, _CHUNK, tl.float32)
        total += a * b
    return tl.sum(total, 1)
