"""Vectors and gradients with NaN or infinite values."""

import math

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures

CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()"


def judge(measures: Measures) -> Finding | None:
    """A problem from the first such value: none can occur in a model that works."""
    if not measures.not_finite:
        return _of_gradients(measures)
    total = measures.not_finite + measures.vectors
    return Finding(
        "nan",
        "problem",
        measures.label,
        f"{measures.not_finite:,} of {total:,} vectors contain NaN or infinite values. They have index −1, and "
        "their quantized vector is NaN.",
        "Find the first module that returns such a value, and clip the gradients that led there.",
        CLIP,
    )


def has_finite_gradients(measures: Measures) -> bool:
    """Whether gradients were measured, and are numbers."""
    gradients = measures.gradients
    return gradients is not None and math.isfinite(gradients.with_quantizer) and math.isfinite(gradients.without)


def _of_gradients(measures: Measures) -> Finding | None:
    if measures.gradients is None or has_finite_gradients(measures):
        return None
    return Finding(
        "nan",
        "problem",
        measures.label,
        "The gradient of the loss at the quantizer is NaN or infinite, though its vectors are finite.",
        "Check that the loss is finite: a logarithm or a division in it may not be.",
        "torch.autograd.set_detect_anomaly(True)  # the backward pass then names the operation",
    )
