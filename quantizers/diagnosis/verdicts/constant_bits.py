"""Bits that are the same for all vectors."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import dim_of, larger_entropy
from quantizers.diagnosis.verdicts.saturated_channels import FEWEST, ONE_LEVEL


def judge(measures: Measures) -> Finding | None:
    """Count the channels of two levels with `ONE_LEVEL` of the vectors on one of them: below 0.1 bits each."""
    if measures.levels is None or measures.vectors < FEWEST:
        return None
    bits = [counts for counts in measures.levels if len(counts) == 2]
    constant = [counts for counts in bits if max(counts) >= ONE_LEVEL * sum(counts)]
    if not constant:
        return None
    remedy, code = _remedy(measures)
    return Finding(
        "constant-bits",
        "problem" if 2 * len(constant) > len(bits) else "warning",
        measures.label,
        f"{len(constant)} of {len(bits)} bits have one value for {ONE_LEVEL:.0%} of the vectors or more and carry "
        "almost no information.",
        remedy,
        code,
    )


def _remedy(measures: Measures) -> tuple[str, str]:
    code = larger_entropy(measures)
    if code is None:
        return (
            "Normalize the vectors in front of the quantizer, so that each channel has both signs.",
            f"torch.nn.BatchNorm1d({dim_of(measures)})  # before the quantizer",
        )
    return (
        "Double the weight of the entropy loss, which makes both values of a bit frequent; again if needed.",
        code,
    )
