"""Training aids that a variant may ask for beside its constructor's options: `vq:warm_start=True:replace=dead`,
`gumbel:anneal=(1,0.5)`.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import quantizers
from benchmarks.errors import InputError
from quantizers.composite.composed import outermost
from quantizers.training.schedules import ExponentialTemperature

Batches = Iterator[torch.Tensor]

WARM_START_BATCHES = 16
REPLACEMENTS = {"dead": quantizers.DeadCodeReplacement, "anchors": quantizers.AnchorUpdate}
DALLE = (1.0, 1 / 16)  # of its dVAE, Ramesh et al. 2021


@dataclass(frozen=True)
class Aids:
    """What is done to the codes around the training.

    warm_start  k-means on what the untrained encoder gives for the first batches, which training then sees too
    replace     after each step: "dead" for DeadCodeReplacement, "anchors" for AnchorUpdate, None for neither
    anneal      a Gumbel quantizer's temperature at the first and the last step, falling exponentially; None to
                leave it as constructed
    """

    warm_start: bool = False
    replace: str | None = None
    anneal: tuple[float, float] | None = DALLE

    def start(
        self, model: nn.Module, batches: Iterator[torch.Tensor], device: torch.device
    ) -> Iterator[torch.Tensor]:
        """Initialise the codes, if asked for; returns the batches to train on, the same ones in any case."""
        if not self.warm_start:
            return batches
        first = list(itertools.islice(batches, WARM_START_BATCHES))
        quantizers.warm_start(model, [batch.to(device) for batch in first])
        return itertools.chain(first, batches)

    def replacement(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """What replaces codes; None where nothing is replaced."""
        return None if self.replace is None else REPLACEMENTS[self.replace](model, optimizer)

    def temperatures(self, model: nn.Module, steps: int) -> list[ExponentialTemperature]:
        """A schedule for each outermost Gumbel quantizer in the model."""
        if self.anneal is None:
            return []
        start, end = self.anneal
        gumbel = [q for q in outermost(model).values() if isinstance(q, quantizers.GumbelQuantizer)]
        return [ExponentialTemperature(quantizer, start=start, end=end, steps=steps) for quantizer in gumbel]

    def helpers(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[Any]:
        """All that has a `step()` to call after each of the optimizer's, and a state."""
        replacement = self.replacement(model, optimizer)
        return [*([] if replacement is None else [replacement]), *self.temperatures(model, steps)]


def split_aids(options: dict[str, Any]) -> tuple[Aids, dict[str, Any]]:
    """The aids among a variant's options, and the options without them.

    Raises: InputError for a value that an aid does not have.
    """
    others = dict(options)
    warm_start, replace = others.pop("warm_start", False), others.pop("replace", None)
    anneal = others.pop("anneal", DALLE)
    if not isinstance(warm_start, bool):
        raise InputError(f"--quantizers: warm_start={warm_start}, expected True or False")
    if replace is not None and replace not in REPLACEMENTS:
        raise InputError(f"--quantizers: replace={replace}, expected one of {', '.join(REPLACEMENTS)}")
    if anneal is not None and not _is_range(anneal):
        raise InputError(f"--quantizers: anneal={anneal}, expected two temperatures above 0, as (1,0.5), or None")
    return Aids(warm_start, replace, anneal), others


def _is_range(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else ()
    return len(numbers) == 2 and all(isinstance(each, int | float) and 0 < each < math.inf for each in numbers)
