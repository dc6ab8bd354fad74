"""Gumbel noise in a kernel: the numbers of `reference.noise.gumbel_noise`, drawn where they are needed."""

import math

import triton
import triton.language as tl

from quantizers.kernels.common.constants import (
    PHILOX_KEY_STEPS,
    PHILOX_MULTIPLIERS,
    PHILOX_ROUNDS,
    UNIFORM_BITS,
    WORD_BITS,
)

GROUP = 16
"""Codes in a group, within which `code_order` changes their order."""

_GROUP = tl.constexpr(GROUP)
_UNUSED_BITS = tl.constexpr(WORD_BITS - UNIFORM_BITS)
_ONE_BITS = tl.constexpr(0x3F800000)  # of the float32 number 1
_BELOW_ONE = tl.constexpr(1 - 2.0 ** -(UNIFORM_BITS + 1))
_ROUNDS = tl.constexpr(PHILOX_ROUNDS)
_MULTIPLIER_0, _MULTIPLIER_1 = (tl.constexpr(number) for number in PHILOX_MULTIPLIERS)
_STEP_0, _STEP_1 = (tl.constexpr(number) for number in PHILOX_KEY_STEPS)

LOG_2_OF_LOG_2 = tl.constexpr(math.log2(math.log(2)))
"""What `binary_gumbel_tile` adds to G log2 e."""


@triton.jit
def binary_gumbel_tile(
    seed, first_row, first_code, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WARPS: tl.constexpr
):  # fmt: skip
    """−log2(−log2 v), [BLOCK_N, BLOCK_K] float32, of uniform numbers v: G log2 e + LOG_2_OF_LOG_2 for the noise G.

    A softmax does not notice the constant. Arguments and order are those of `noise_words`.

    The uniform numbers equal the reference's bit for bit. −log2 v has a relative error r of at most 2⁻²⁰·⁷, from
    one of two sources. According to NVIDIA, `lg2.approx` has an absolute error of 2⁻²² between ½ and 2, and a
    relative one of 2⁻²² elsewhere; for v ≤ ¾, |log2 v| > 0.415. For larger v, which yield the largest noise, there
    is a polynomial in t = 1 − v, which is exact; it has a relative error of 2⁻²⁴·⁶, and with its roundings 2⁻²²·⁶.
    The second logarithm adds an absolute error of 2⁻²² max(1, |log2(−log2 v)|) to that of r log2 e. In nats, the
    noise has an absolute error of at most r + 2⁻²² (0.7 + |G|), and less than 2⁻²³ (1 + |G|) for roundings: less
    than 2⁻²⁰ (1 + |G|).
    """
    words = noise_words(seed, first_row, first_code, BLOCK_N, BLOCK_K, WARPS)
    # The bits of a number in [1, 2), from which an exact difference makes (⌊word / 2⁹⌋ + ½) 2⁻²³.
    uniform = ((words >> _UNUSED_BITS) | _ONE_BITS).to(tl.float32, bitcast=True) - _BELOW_ONE
    rest = 1 - uniform
    series = 0.4902242124080658 * rest + 0.20762555301189423
    series = series * rest + 0.371925950050354
    series = series * rest + 0.48021063208580017
    series = series * rest + 0.7213626503944397
    series = series * rest + 1.4426950216293335
    return -fast_log2(tl.where(uniform > 0.75, series * rest, -fast_log2(uniform)))


@triton.jit
def fast_log2(x):
    """log2 of positive float32 numbers that are not subnormal, by one instruction (`lg2.approx`)."""
    if _INTERPRETED:
        result = tl.log2(x)
    else:
        result = tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return result


@triton.jit
def code_order(position):
    """The code at a position within consecutive codes: the order of `noise_words`, within groups of 16.

    In the result of a matrix unit, a thread holds the columns 2c, 2c + 1, 2c + 8 and 2c + 9 of a group, c < 4. In
    this order they are the codes 4c to 4c + 3, whose noise comes from the same Philox counter.
    """
    return (
        (position & -_GROUP) + 4 * ((position >> 1) & 3) + 2 * ((position >> 3) & 1) + (position & 1)
    )  # fmt: skip


@triton.jit
def noise_words(
    seed, first_row, first_code, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WARPS: tl.constexpr
):  # fmt: skip
    """The Philox words of a tile, [BLOCK_N, BLOCK_K] uint32. BLOCK_N and BLOCK_K are multiples of 16.

    Code k of row n has word k mod 4 of counter (⌊k/4⌋, n, 0, 0). Rows are consecutive from first_row on, and
    column i has code first_code + code_order(i), with first_code a multiple of 16.

    The dimensions of the counters are in an order by which Triton gives the counters of a row's four threads in a
    matrix unit's result to these threads, if WARPS is the number of warps: then no words move between threads.
    """
    GROUPS: tl.constexpr = BLOCK_K // _GROUP
    # Warps lie along the rows, 16 each, and then along halves, quarters … of the columns.
    DOWN: tl.constexpr = min(WARPS, BLOCK_N // 16)
    ACROSS: tl.constexpr = min(max(WARPS // DOWN, 1), GROUPS)
    EACH: tl.constexpr = GROUPS // ACROSS  # groups
    TALL: tl.constexpr = BLOCK_N // (16 * DOWN)
    i = tl.arange(0, BLOCK_N * ACROSS)  # (tile, half of 16 rows, half of the columns, warp, row of eight)
    row = (i & 7) + 16 * ((i >> 3) % DOWN) + 8 * ((i // (8 * DOWN * ACROSS)) % 2)
    row += 16 * DOWN * (i // (16 * DOWN * ACROSS))
    group = EACH * ((i // (8 * DOWN)) % ACROSS)
    group = group[None, :] + tl.arange(0, EACH)[:, None]
    quad = first_code // 4 + 4 * group[:, :, None] + tl.arange(0, 4)[None, None, :]
    number = (first_row + row).to(tl.uint32)
    seed = seed.to(tl.uint64)
    zero = tl.zeros((EACH, BLOCK_N * ACROSS, 4), tl.uint32)
    a, b, c, d = _philox(seed.to(tl.uint32), (seed >> 32).to(tl.uint32), zero + quad.to(tl.uint32),
                         zero + number[None, :, None], zero)  # fmt: skip
    words = tl.join(tl.join(a, b), tl.join(c, d))
    words = tl.reshape(words, [EACH, TALL, 2, ACROSS, DOWN, 8, 4, 2, 2])
    words = tl.permute(words, [1, 4, 2, 5, 3, 0, 8, 6, 7])
    return tl.reshape(words, [BLOCK_N, BLOCK_K])


@triton.jit
def _philox(key_0, key_1, a, b, zero):
    """The four words of counters (a, b, 0, 0) of Philox 4x32."""
    c, d = zero, zero
    for _ in tl.static_range(_ROUNDS):
        from_a, from_c = a.to(tl.uint64) * _MULTIPLIER_0, c.to(tl.uint64) * _MULTIPLIER_1
        a, b = (from_c >> 32).to(tl.uint32) ^ b ^ key_0, from_c.to(tl.uint32)
        c, d = (from_a >> 32).to(tl.uint32) ^ d ^ key_1, from_a.to(tl.uint32)
        key_0 = tl.add(key_0, _STEP_0, sanitize_overflow=False)
        key_1 = tl.add(key_1, _STEP_1, sanitize_overflow=False)
    return a, b, c, d


_INTERPRETED = tl.constexpr(not isinstance(fast_log2, triton.runtime.JITFunction))
