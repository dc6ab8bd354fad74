"""The third stage: sample codes from the priors, the top level first, and decode them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.chain import levels
from benchmarks.chain.priors import Fitted, condition
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.sources import Batch
from benchmarks.errors import InputError
from benchmarks.models.sampling import sample

COLUMNS = 10  # of a picture; for digits, one per class


@dataclass(frozen=True)
class Filters:
    """Filters of the sampled distribution, see `benchmarks.models.sampling.filter_logits`. Raises: InputError."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"--temperature: got {self.temperature}; expected a finite number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"--top-k: got {self.top_k}; expected at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"--top-p: got {self.top_p}; expected a number above 0 and at most 1")


def draw(
    trained: Trained,
    fitted: Fitted,
    labels: Tensor | None,
    count: int,
    *,
    filters: Filters,
    seed: int,
    device: str,
) -> Tensor:
    """Return `count` images in [−1, 1], of the size that the priors were fitted on. labels: [count], if there are
    classes.
    """
    batch = Batch(torch.empty(count, 0), labels)
    generator = torch.Generator(device).manual_seed(seed)
    codes: levels.Codes = ()
    for level, prior in enumerate(fitted.priors):
        codes += (
            sample(
                prior,
                count,
                levels.grids(trained.model, fitted.side, fitted.side)[level],
                condition(batch, codes, level, device),
                temperature=filters.temperature,
                top_k=filters.top_k,
                top_p=filters.top_p,
                generator=generator,
            ),
        )
    return levels.decode(trained.model, codes)


def grid_labels(trained: Trained, rows: int) -> Tensor | None:
    """Return labels for rows of ten images: all classes from left to right in each row; None without classes."""
    classes = trained.source.classes
    return None if classes is None else torch.arange(rows * COLUMNS) % classes
