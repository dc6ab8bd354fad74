"""What the measures mean: one module for each verdict, with its threshold and the reason for it.

A verdict is a function from the measures of a quantizer, or of a part of one, to a finding or None.
"""

from collections.abc import Callable

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.verdicts import (
    collapsed_vectors,
    constant_bits,
    dead_codes,
    error,
    growing_commitment,
    idle_stages,
    not_finite,
    saturated_channels,
    spread_and_offset,
    too_few_vectors,
    vanishing_gradients,
)

Verdict = Callable[[Measures], Finding | None]

VERDICTS: tuple[Verdict, ...] = (
    not_finite.judge,
    collapsed_vectors.judge,
    vanishing_gradients.judge,
    dead_codes.judge,
    spread_and_offset.judge,
    growing_commitment.judge,
    error.judge,
    saturated_channels.judge,
    constant_bits.judge,
    idle_stages.judge,
    too_few_vectors.judge,
)
