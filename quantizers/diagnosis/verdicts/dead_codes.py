"""Codes that no vector chooses."""

import math

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import (
    REPLACEMENT,
    has_enough_vectors,
    is_grid,
    larger_entropy,
    tables,
    warm_start,
)

LEAST_IN_USE = 0.5
"""A codebook of which fewer than half of the codes are used gets a warning.

In `make bench` (K 1024, 1000 steps) VQ with DeadCodeReplacement uses 54 to 62 % of its codes, and VQ without it 2
to 3 %. Half the codes also means a loss of one bit per vector at least.
"""
MOSTLY_DEAD = 0.25
"""Below a quarter, two bits per vector at least are lost, and the finding is a problem.

The codes of a grid cost nothing, and correlated channels leave many of them unused: there it stays a warning.
"""


def judge(measures: Measures) -> Finding | None:
    """Compare the codes in use with how many equally frequent codes so many vectors would use."""
    size, used, expected = measures.codebook_size, measures.codes_in_use, measures.expected_in_use
    if size is None or used is None or expected is None or size < 2 or measures.shared:
        return None
    if not has_enough_vectors(measures):
        return None
    if used >= LEAST_IN_USE * expected:
        return None
    remedy, code = _remedy(measures)
    few = "1 code is" if used == 1 else f"{used:,} codes are"
    return Finding(
        "dead-codes",
        "problem" if used < MOSTLY_DEAD * expected and not is_grid(measures) else "warning",
        measures.label,
        f"Only {few} in use of {size:,}: {size - used:,} were chosen by none of {measures.vectors:,} vectors. The "
        f"indices carry {math.log2(measures.perplexity or 1.0):.1f} bits per vector, and {measures.bits:.1f} are "
        "possible.",
        remedy,
        code,
    )


def _remedy(measures: Measures) -> tuple[str, str]:
    quantizer = measures.quantizer
    if quantizer is not None and quantizer.frozen:
        return (
            "The codes are frozen. Let them learn, or take codes that fit these vectors.",
            f"{measures.path}.unfreeze()",
        )
    if tables(quantizer):
        return "Replace dead codes while you train: replacement.step() after each optimizer.step().", REPLACEMENT
    if (code := larger_entropy(measures)) is not None:
        return "Double the weight of the entropy loss; again if needed.", code
    if is_grid(measures):
        return (
            "Use fewer levels, or train longer: the encoder does not spread its vectors over the grid.",
            f"quantizers.levels_for({2 * (measures.codes_in_use or 1)})  # levels for a smaller codebook",
        )
    if quantizer is not None and quantizer.initializes_from_data:
        return "Start the codes from the vectors that reach them.", warm_start(measures)
    return "Use a smaller codebook.", ""
