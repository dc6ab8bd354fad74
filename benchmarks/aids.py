"""Training aids that a variant can request next to its constructor options: `vq:warm_start=True:replace=dead`,
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
DALLE = (1.0, 1 / 16)  # the annealing range of DALL·E's dVAE, Ramesh et al. 2021


@dataclass(frozen=True)
class Aids:
    """Optional steps during training that help the codes.

    warm_start  initialize the codes by k-means on the untrained encoder's outputs for the first batches; training
                then uses the same batches
    replace     after each step: "dead" for DeadCodeReplacement, "anchors" for AnchorUpdate, None for neither
    anneal      temperatures of a Gumbel quantizer at the first and the last step, with exponential decay in
                between; None to keep the constructor's temperature
    """

    warm_start: bool = False
    replace: str | None = None
    anneal: tuple[float, float] | None = DALLE

    def start(
        self, model: nn.Module, batches: Iterator[torch.Tensor], device: torch.device
    ) -> Iterator[torch.Tensor]:
        """Initialize the codes if a warm start is requested. Returns the batches to train on, the same in both
        cases.
        """
        if not self.warm_start:
            return batches
        first = list(itertools.islice(batches, WARM_START_BATCHES))
        quantizers.warm_start(model, [batch.to(device) for batch in first])
        return itertools.chain(first, batches)

    def replacement(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """Return the object that replaces codes, or None if nothing is replaced."""
        return None if self.replace is None else REPLACEMENTS[self.replace](model, optimizer)

    def temperatures(self, model: nn.Module, steps: int) -> list[ExponentialTemperature]:
        """Return one schedule for each outermost Gumbel quantizer in the model."""
        if self.anneal is None:
            return []
        start, end = self.anneal
        gumbel = [q for q in outermost(model).values() if isinstance(q, quantizers.GumbelQuantizer)]
        return [ExponentialTemperature(quantizer, start=start, end=end, steps=steps) for quantizer in gumbel]

    def helpers(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[Any]:
        """Return the stateful objects whose `step()` must be called after each optimizer step."""
        replacement = self.replacement(model, optimizer)
        return [*([] if replacement is None else [replacement]), *self.temperatures(model, steps)]


def split_aids(options: dict[str, Any]) -> tuple[Aids, dict[str, Any]]:
    """Separate the training aids from a variant's constructor options.

    Raises: InputError for an invalid value of an aid.
    """
    others = dict(options)
    warm_start, replace = others.pop("warm_start", False), others.pop("replace", None)
    anneal = others.pop("anneal", DALLE)
    if not isinstance(warm_start, bool):
        raise InputError(f"--quantizers: got warm_start={warm_start}; expected True or False")
    if replace is not None and replace not in REPLACEMENTS:
        raise InputError(f"--quantizers: got replace={replace}; expected one of {', '.join(REPLACEMENTS)}")
    if anneal is not None and not _is_range(anneal):
        raise InputError(
            f"--quantizers: got anneal={anneal}; expected two temperatures above 0, such as (1,0.5), or None"
        )
    return Aids(warm_start, replace, anneal), others


def _is_range(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else ()
    return len(numbers) == 2 and all(isinstance(each, int | float) and 0 < each < math.inf for each in numbers)
