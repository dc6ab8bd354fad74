"""An encoder that gives every input the same vector."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import is_collapsed, is_grid


def judge(measures: Measures) -> Finding | None:
    """A problem where the spread of the vectors is below 2⁻²⁰ of their norm.

    This is a few roundings of float32 (2⁻²⁴ each), as an encoder makes them that computes the same vector from
    every input. Then one code represents all vectors, and quantizer losses fall to zero.
    """
    if not is_collapsed(measures) or measures.part or is_grid(measures):  # a bound makes large vectors equal
        return None
    return Finding(
        "loss-at-zero",
        "problem",
        measures.label,
        f"All {measures.vectors:,} vectors are the same: their spread is {measures.vector_spread:.1e} at a norm "
        f"of {measures.vector_norm:.3g}. The quantizer gets no information about the input, and its loss is near "
        "zero.",
        "The encoder has collapsed: start it anew with a lower learning rate, and let gradients reach it.",
        "optimizer.param_groups[0]['lr'] *= 0.1",
    )
