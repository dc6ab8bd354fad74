"""A quantization error that the number of codes does not explain."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import approximates, is_collapsed, warm_start

LEAST_EFFICIENCY = 0.25
"""The least share of the possible reduction of the error.

With its bits, a codebook could reduce the error on Gaussian vectors of this covariance from 1 to D, see
`rate.attainable_share`. Codes of k-means on Gaussian vectors reach 46 % of this reduction with two codes in
many channels, and more with more codes or fewer channels. So a codebook that reaches less than a quarter is not
fitted to its vectors.
"""
FEWEST_PER_CHANNEL = 10
"""The fewest vectors per channel of a code: fewer make some principal axes look shorter than they are."""


def judge(measures: Measures) -> Finding | None:
    """Compare 1 − (share lost) with what the bits allow; of whole quantizers, whose codes can adapt."""
    lost, attainable, efficiency = measures.lost, measures.attainable, measures.efficiency
    if measures.part or lost is None or attainable is None or efficiency is None or is_collapsed(measures):
        return None
    if measures.vectors < FEWEST_PER_CHANNEL * measures.code_dim:
        return None
    if efficiency >= LEAST_EFFICIENCY or (measures.commitment or 0.0) > 1 or not approximates(measures):
        return None
    return Finding(
        "large-quantization-error",
        "warning",
        measures.label,
        f"Quantization loses {100 * lost:.3g} % of the variance of the vectors. {measures.bits:.3g} bits could "
        f"bring this down to {100 * attainable:.3g} % for Gaussian vectors of this covariance.",
        "Start the codes from the vectors that reach them.",
        warm_start(measures),
    )
