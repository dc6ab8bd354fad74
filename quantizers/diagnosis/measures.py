"""What is measured of a quantizer, or of a part of one."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from quantizers.core.base import Quantizer


def python_path(name: str, root: str = "model") -> str:
    """How Python reaches the module of a name: "model.encoder[1]" for "encoder.1"."""
    steps = [f"[{step}]" if step.isdecimal() else f".{step}" for step in name.split(".") if step]
    return "".join([root, *steps])


def _as_finite(values: dict[str, Any]) -> dict[str, Any]:
    """The numbers, None for those that are not finite: JSON has neither NaN nor infinity."""
    return {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}


def root_of(name: str) -> str:
    """What the outermost module is called in paths, if a quantizer has this name in it."""
    return "model" if name else "quantizer"


@dataclass(frozen=True)
class Gradients:
    """The gradient of the loss, as the root of the sum of squares over all vectors of a batch.

    Over several batches it is the root mean square.
    """

    with_quantizer: float
    """The norm of what reaches the encoder's vectors."""
    without: float
    """The norm of the decoder's gradient, which would reach them if the quantizer were the identity."""
    cosine: float | None
    """The cosine between the two; None where one of them is zero."""


@dataclass(frozen=True)
class Drawn:
    """What a figure shows, on the CPU."""

    vectors: Tensor  # [n, D], a sample, as the search compares them
    codes: Tensor | None  # [K, D] in the same space; of a grid the distinct values in the sample
    counts: Tensor | None  # int64 [K]


@dataclass(frozen=True)
class Measures:
    """What was measured of one quantizer. A value is None where it does not apply or was not measured.

    Spreads and norms are those of the space in which the search compares vectors with codes: behind the projection
    `code_dim`, and on the unit sphere for distance="cosine". Shares are from 0 to 1.
    """

    name: str
    """The name in the model; "" if the model is the quantizer."""
    part: str
    """"" for all of the quantizer; "stage 0", "group 1 / stage 0", "scale 2 (1/4)", "codebook 3" inside it."""
    bits: float
    """log₂ of the number of values that the indices tell apart, per vector; of maps, a mean over positions."""
    code_dim: int
    vectors: int
    """How many vectors chose codes."""
    not_finite: int
    """How many vectors of those that the mask leaves have a NaN or infinite value; 0 for parts."""
    codebook_size: int | None = None
    """K; None for several codebooks, whose measures follow by part."""
    codes_in_use: int | None = None
    """How many codes were chosen at least once; None for more than 2²⁴ codes."""
    perplexity: float | None = None
    dead_codes: int | None = None
    possible_utilization: float | None = None
    """The largest share of the codes that so many vectors can use, min(1, vectors / K)."""
    expected_in_use: float | None = None
    """How many codes so many vectors would use if each chose any code with the same probability."""
    vector_spread: float | None = None
    """The root mean square distance of the vectors from their mean."""
    vector_norm: float | None = None
    """The root mean square of the vectors' norms."""
    code_spread: float | None = None
    code_norm: float | None = None
    offset: float | None = None
    """The distance between the mean of the vectors and the mean of the codes, divided by `vector_spread`."""
    lost: float | None = None
    """Σ‖z − q‖² / Σ‖z − mean z‖²: the share of the vectors' variance that quantization loses."""
    attainable: float | None = None
    """The share that `bits` leave of Gaussian vectors with the same covariance, see `rate.attainable_share`."""
    commitment: float | None = None
    """mean ‖z − q‖² / Var z, for a quantizer with a commitment loss; equal to `lost`."""
    commitment_weight: float | None = None
    left: float | None = None
    """Of a stage or a scale: Σ‖r − q‖² / Σ‖r‖² of the residuals r that reached it."""
    levels: tuple[tuple[int, ...], ...] | None = None
    """Of a grid: for each channel, how many vectors were on each of its levels, from the lowest."""
    shared: bool = False
    """Whether the same codebook serves other parts; then the part "shared codebook" has the sum."""
    gradients: Gradients | None = None
    path: str = ""
    """How Python reaches the quantizer: "model.quantizer", "model[1].quantizers[0]"."""
    quantizer: Quantizer | None = field(default=None, repr=False, compare=False)
    drawn: Drawn | None = field(default=None, repr=False, compare=False)

    @property
    def efficiency(self) -> float | None:
        """The reduction of the error as a share of what the bits allow: (1 − lost) / (1 − attainable)."""
        if self.lost is None or self.attainable is None or self.attainable > 0.999:
            return None
        return (1 - self.lost) / (1 - self.attainable)

    @property
    def label(self) -> str:
        """The quantizer as Python reaches it and the part, for a reader: "model.quantizer, stage 2"."""
        return ", ".join(filter(None, [python_path(self.name, root_of(self.name)), self.part]))

    def to_dict(self) -> dict[str, Any]:
        """The measures as numbers and strings that JSON can hold."""
        own = {key: value for key, value in vars(self).items() if key not in ("quantizer", "drawn", "gradients")}
        own["gradients"] = None if self.gradients is None else _as_finite(asdict(self.gradients))
        own["levels"] = None if self.levels is None else [list(counts) for counts in self.levels]
        return own
