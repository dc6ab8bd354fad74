"""Codes that do not lie where the vectors are."""

import math

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import approximates, is_collapsed, warm_start

LARGEST_RATIO = 3.0
"""How many times the spread of the codes may be larger or smaller than that of fitted codes.

Codes that are means of vectors spread less than the vectors: by the factor √(1 − D), if D is the share of the
variance that quantization loses. The expectation takes the share for D that the codebook's bits could attain on
Gaussian vectors. Codes of k-means on Gaussian vectors keep within this factor; the test searches for others. Codes
that start at N(0, 1/D) while the vectors have another scale leave the range.
"""
LEAST_EFFICIENCY = 0.5
"""From this share of the possible reduction of the error on, codes serve the vectors wherever they lie.

Codes that are seldom used may lie far away without harm, such as those of the last stages of a residual quantizer,
whose vectors become smaller while it trains.
"""
LARGEST_OFFSET = 1.0
"""How far the mean of the codes may lie from the mean of the vectors, in spreads of the vectors.

At 1 the distance from a typical vector to the mean of the codes has doubled in square.
"""


def judge(measures: Measures) -> Finding | None:
    """Compare the spread of the codes with the spread that fitted codes would have, and the two means."""
    size, vectors, codes = measures.codebook_size, measures.vector_spread, measures.code_spread
    if size is None or size < 2 or measures.shared or is_collapsed(measures) or not approximates(measures):
        return None
    if measures.efficiency is not None and measures.efficiency >= LEAST_EFFICIENCY:
        return None
    if not vectors or codes is None or measures.offset is None:
        return None
    expected = vectors * math.sqrt(1 - (measures.attainable or 0.0))
    ratio = codes / expected if expected else 1.0
    if measures.offset <= LARGEST_OFFSET and 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        return None
    parts = []
    if ratio < 1 / LARGEST_RATIO or ratio > LARGEST_RATIO:
        factor = (
            f"{ratio:.3g} times wider" if ratio > 1 else f"{1 / ratio if ratio else math.inf:.3g} times narrower"
        )
        parts.append(
            f"the codes have a spread of {codes:.3g} and the vectors one of {vectors:.3g}, which makes the codes "
            f"{factor} than fitted codes would be"
        )
    if measures.offset > LARGEST_OFFSET:
        parts.append(
            f"the mean of the codes lies {measures.offset:.3g} spreads of the vectors away from the mean of the "
            "vectors"
        )
    sentence = ", and ".join(parts)
    return Finding(
        "spread-and-offset",
        "warning",
        measures.label,
        f"{sentence[0].upper()}{sentence[1:]}.",
        "Start the codes from the vectors that reach them.",
        warm_start(measures),
    )
