"""Stages and scales that add nothing."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import warm_start

MOST_LEFT = 0.99
"""The largest share of its input that a stage may leave.

A stage whose codes are means of the residuals leaves less than it got. The border is what two codes, the fewest
possible, leave of Gaussian residuals with 64 channels: 1 − 2/(64 π) = 0.990.
"""


def judge(measures: Measures) -> Finding | None:
    """Compare the sum of squares after a stage with the one before it."""
    if measures.left is None or measures.left < MOST_LEFT:
        return None
    return Finding(
        "stages-that-add-nothing",
        "warning",
        measures.label,
        f"The error after this stage is {100 * measures.left:.4g} % of the error before it: its indices cost "
        f"{measures.bits:.3g} bits per vector and add nothing.",
        "Start the stages from the residuals that reach them, or use fewer stages.",
        warm_start(measures),
    )
