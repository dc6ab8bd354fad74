"""Vectors with NaN or infinite values."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures


def judge(measures: Measures) -> Finding | None:
    """A problem from the first such vector: none can occur in a model that works."""
    if not measures.not_finite:
        return None
    total = measures.not_finite + measures.vectors
    return Finding(
        "nan",
        "problem",
        measures.label,
        f"{measures.not_finite:,} of {total:,} vectors contain NaN or infinite values. They have index −1, and "
        "their quantized vector is NaN.",
        "Find the first module that returns such a value, and clip the gradients that led there.",
        "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()",
    )
