"""Vectors that run away from their codes."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import approximates, is_collapsed, warm_start

LARGEST_COMMITMENT = 1.0
"""The largest commitment term mean ‖z − e‖², relative to the variance of the vectors.

A single code at the mean of all vectors has exactly 1. A codebook above it serves the vectors worse than one code
could, so the commitment loss pulls them towards codes that are not where they are.
"""


def judge(measures: Measures) -> Finding | None:
    """Compare the commitment term with the variance, for a quantizer that has a commitment loss."""
    commitment = measures.commitment
    if commitment is None or commitment <= LARGEST_COMMITMENT or measures.part or is_collapsed(measures):
        return None
    if not approximates(measures):
        return None
    return Finding(
        "growing-commitment",
        "problem",
        measures.label,
        f"The mean squared distance from a vector to its code is {commitment:.3g} times the variance of the "
        "vectors; one code at their mean would have 1. The vectors have run away from the codes.",
        "Put the codes back among the vectors. If it happens again, lower the learning rate of the encoder or use "
        '"ema_vq", whose codes follow faster.',
        warm_start(measures),
    )
