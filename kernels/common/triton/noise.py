"""Gumbel noise in a kernel: the numbers of `reference.noise.gumbel_noise`, drawn where they are needed."""

import triton
import triton.language as tl

from quantizers.kernels.common.constants import UNIFORM_BITS, WORD_BITS

_UNUSED_BITS = tl.constexpr(WORD_BITS - UNIFORM_BITS)
_STEP = tl.constexpr(2.0**-UNIFORM_BITS)  # between two uniform numbers


@triton.jit
def gumbel_tile(seed, rows, first_code, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Noise [BLOCK_N, BLOCK_K] float32 of the given rows and the codes from first_code on, a multiple of four.

    The uniform numbers equal the reference's bit for bit. With logarithms of relative accuracy r (also near 1,
    which yields the largest noise), the noise G has an absolute error of at most r (1 + |G|).
    """
    words = noise_words(seed, rows, first_code, BLOCK_N, BLOCK_K)
    uniform = ((words >> _UNUSED_BITS).to(tl.int32).to(tl.float32) + 0.5) * _STEP  # exact: 24 bits
    return -tl.log(-tl.log(uniform))


@triton.jit
def noise_words(seed, rows, first_code, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """The Philox words of a tile, uint32: code k of row n has word k mod 4 of counter (⌊k/4⌋, n, 0, 0)."""
    quads = (first_code // 4 + tl.arange(0, BLOCK_K // 4)).to(tl.uint32)
    zero = tl.zeros((BLOCK_N, BLOCK_K // 4), tl.uint32)
    a, b, c, d = tl.philox(seed, zero + quads[None, :], zero + rows.to(tl.uint32)[:, None], zero, zero)
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
