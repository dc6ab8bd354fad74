"""What a fit tells while it runs, and what it found."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from quantizers.monitoring import metrics


class Progress(NamedTuple):
    """How far a fit has come."""

    codebook: int
    """The codebook in work, from 0, in the order of the quantizer's indices."""
    codebooks: int
    phase: str
    """"sampling", "growing samples", "batches", "all vectors" or "encoding"."""
    done: int
    """Vectors that this phase has read."""
    total: int | None
    """Vectors that it will read; None while the length of the data is unknown."""
    inertia: float | None
    """Mean squared distance of the vectors from their codes in the last pass; None before the first."""
    used: int | None
    """Codes that had a vector in that pass."""


OnProgress = Callable[[Progress], None]
"""Called with the progress after each block of vectors."""


class Pass(NamedTuple):
    """One assignment of vectors to the codes of one codebook."""

    codebook: int
    phase: str
    vectors: int
    inertia: float
    """Mean squared distance of these vectors from the codes before they moved, in the codebook's own space."""
    used: int
    seconds: float
    """Time since the fit began, without the time before a resumption."""


@dataclass(frozen=True)
class CodebookUse:
    """How the vectors use one codebook."""

    size: int
    used: int
    """Codes that at least one vector chose."""
    perplexity: float
    """2 to the power of the entropy of the indices: the number of equally used codes with this entropy."""
    entropy: float
    """In bits per vector."""

    @classmethod
    def of(cls, counts: Tensor) -> "CodebookUse":
        """Args: counts: [K], the number of vectors of each code."""
        return cls(len(counts), int((counts > 0).sum()), metrics.perplexity(counts), metrics.entropy(counts))


@dataclass(frozen=True)
class FitReport:
    """The result of `fit`, over the vectors of all ranks."""

    count: int
    """Vectors that counted."""
    skipped: int
    """Vectors that did not, because they are not finite."""
    skipped_rows: tuple[int, ...]
    """The positions of the first ten of these in this rank's data."""
    inertia: float
    """Mean of ‖x − decode(encode(x))‖²."""
    variance: float
    """Mean of ‖x − mean(x)‖²."""
    codebooks: tuple[CodebookUse, ...]
    history: tuple[Pass, ...]
    seconds: float

    @property
    def relative_error(self) -> float:
        """inertia / variance; 0 where both are zero."""
        return self.inertia / self.variance if self.variance else float(self.inertia > 0)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        plain = dataclasses.asdict(self)
        return {
            **plain,
            "relative_error": self.relative_error,
            "history": [each._asdict() for each in self.history],
        }
