"""Gumbel noise from a counter: every implementation draws the same number for the same seed, row and code."""

import torch
from torch import Tensor

# Salmon et al.: Parallel Random Numbers: As Easy as 1, 2, 3, 2011: Philox 4x32 with ten rounds.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF


def philox(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Return four random words of 32 bits for a counter of four and a key of two words, all int64 in [0, 2³²)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # int64 wraps around, which preserves all 64 bits
        c0, c1, c2, c3 = (
            ((second >> 32) & WORD) ^ c1 ^ k0,
            second & WORD,
            ((first >> 32) & WORD) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return [c0, c1, c2, c3]


def gumbel_noise(seed: Tensor, rows: Tensor, codebook_size: int) -> Tensor:
    """Return standard Gumbel noise, [N, K] float64, for row numbers [N] int64 in [0, 2³²) and codes 0 … K − 1.

    Code k of row n uses word k mod 4 of Philox at counter (⌊k/4⌋, n, 0, 0) under the 64 bits of `seed` (0-d
    int64). A word w gives the uniform number (⌊w/512⌋ + ½)·2⁻²³, which is exact in float32 and neither 0 nor 1.
    The noise −ln(−ln(uniform)) lies between −2.8 and 16.7.
    """
    quads = torch.arange((codebook_size + 3) // 4, device=rows.device)
    zero = torch.zeros_like(quads)
    words = philox([quads, rows[:, None], zero, zero], [seed & WORD, (seed >> 32) & WORD])
    uniform = (torch.stack(words, -1).flatten(1)[:, :codebook_size] >> 9).double().add(0.5) * 2.0**-23
    return -(-uniform.log()).log()
