"""Gumbel noise from a counter: every implementation draws the same number for the same seed, row and code."""

import torch
from torch import Tensor

from quantizers.kernels.common.constants import (
    PHILOX_KEY_STEPS,
    PHILOX_MULTIPLIERS,
    PHILOX_ROUNDS,
    UNIFORM_BITS,
    WORD_BITS,
)

WORD = 2**WORD_BITS - 1


def philox(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Return four random words of 32 bits for a counter of four and a key of two words, all int64 in [0, 2³²)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        # int64 wraps around, which preserves all 64 bits.
        first, second = c0 * PHILOX_MULTIPLIERS[0], c2 * PHILOX_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> WORD_BITS) & WORD) ^ c1 ^ k0,
            second & WORD,
            ((first >> WORD_BITS) & WORD) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + PHILOX_KEY_STEPS[0]) & WORD, (k1 + PHILOX_KEY_STEPS[1]) & WORD
    return [c0, c1, c2, c3]


def gumbel_noise(seed: Tensor, rows: Tensor, codebook_size: int) -> Tensor:
    """Return standard Gumbel noise, [N, K] float64, for row numbers [N] int64 in [0, 2³²) and codes 0 … K − 1.

    Code k of row n uses word k mod 4 of Philox at counter (⌊k/4⌋, n, 0, 0) under the 64 bits of `seed` (0-d
    int64). A word w gives the uniform number (⌊w/512⌋ + ½)·2⁻²³, which is exact in float32 and neither 0 nor 1.
    The noise −ln(−ln(uniform)) lies between −2.8 and 16.7.
    """
    quads = torch.arange((codebook_size + 3) // 4, device=rows.device)
    zero = torch.zeros_like(quads)
    words = philox([quads, rows[:, None], zero, zero], [seed & WORD, (seed >> WORD_BITS) & WORD])
    words_of_codes = torch.stack(words, -1).flatten(1)[:, :codebook_size]
    uniform = (words_of_codes >> WORD_BITS - UNIFORM_BITS).double().add(0.5) * 2.0**-UNIFORM_BITS
    return -(-uniform.log()).log()
