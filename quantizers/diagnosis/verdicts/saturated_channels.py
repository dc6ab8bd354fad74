"""Channels of a grid that use only their outermost levels, or only one."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import dim_of

OUTERMOST = 0.95
"""The largest share of the vectors on the two outermost levels of a channel.

Equally frequent levels have 2/L there, at most 2/3 with three levels and more.
"""
ONE_LEVEL = 0.99
"""The largest share of the vectors on a single level; a channel beyond it carries less than 0.1 bits."""
FEWEST = 50
"""The fewest vectors to judge a share by: if 2/3 of all are outermost, 0.95 of 50 are once in 10⁵ times."""


def judge(measures: Measures) -> Finding | None:
    """Count channels of three levels and more; channels of two levels are bits, see `constant_bits`."""
    if measures.levels is None or measures.vectors < FEWEST:
        return None
    channels = [counts for counts in measures.levels if len(counts) > 2]
    stuck = [counts for counts in channels if max(counts) >= ONE_LEVEL * sum(counts)]
    saturated = [c for c in channels if c not in stuck and c[0] + c[-1] >= OUTERMOST * sum(c)]
    if not stuck and not saturated:
        return None
    said = []
    if saturated:
        said.append(
            f"{len(saturated)} of {len(measures.levels)} channels put {OUTERMOST:.0%} of the vectors or more on "
            "their two outermost levels, where the bound has almost no slope"
        )
    if stuck:
        said.append(
            f"{len(stuck)} of {len(measures.levels)} channels stay on one level for {ONE_LEVEL:.0%} of the "
            "vectors or more"
        )
    sentence = "; ".join(said)
    return Finding(
        "saturated-channels",
        "problem" if len(stuck) + len(saturated) == len(measures.levels) else "warning",
        measures.label,
        f"{sentence}.",
        "Normalize the vectors in front of the quantizer, so that each channel has the scale of its levels.",
        f"torch.nn.LayerNorm({dim_of(measures)})  # before the quantizer",
    )
