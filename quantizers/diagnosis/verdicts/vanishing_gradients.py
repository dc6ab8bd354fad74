"""Gradients that do not pass the quantizer."""

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts.kinds import dim_of
from quantizers.diagnosis.verdicts.not_finite import has_finite_gradients

LEAST_PASSED = 0.01
"""The least norm of the gradient at the encoder's vectors, relative to that of the decoder's gradient.

A straight-through gradient has 1, and adds that of the commitment loss. Bounds multiply it by their slope: that of
tanh is 0.01 at |z| = 3, and so the finding means that vectors are beyond 3 in general.
"""


def judge(measures: Measures) -> Finding | None:
    """Compare the two norms; a decoder without a gradient is a problem by itself."""
    gradients = measures.gradients
    if gradients is None or not has_finite_gradients(measures):
        return None
    if not gradients.without:
        return Finding(
            "gradients-that-vanish",
            "problem",
            measures.label,
            "The loss has no gradient at the quantized vectors: the model's output does not depend on them.",
            "Decode the quantized vectors that the quantizer returns, not its indices, and do not detach them.",
            "output = decoder(quantizer(z).quantized)",
        )
    if gradients.with_quantizer >= LEAST_PASSED * gradients.without:
        return None
    return Finding(
        "gradients-that-vanish",
        "problem",
        measures.label,
        f"A gradient of norm {gradients.with_quantizer:.2g} reaches the encoder's vectors; without the quantizer "
        f"it would be {gradients.without:.2g}. The encoder hardly learns.",
        "Normalize the vectors in front of the quantizer: its bound has no slope where they are.",
        f"torch.nn.LayerNorm({dim_of(measures)})  # before the quantizer",
    )
