"""Training aids that a variant can request next to its constructor options: `vq:warm_start=True:replace=dead`,
`gumbel:anneal=(1,0.5)`, `interpolated:quantizer=fsq:harden=True`, e-means as
`ema_vq:decay=0.9:decay_to=0.999:replace=split:final_means=True`.
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
from quantizers.training.schedules import CosineDecay, ExponentialTemperature, LinearHardness
from quantizers.training.tables import tables_of

Batches = Iterator[torch.Tensor]

WARM_START_BATCHES = 16
REPLACEMENTS = {
    "dead": quantizers.DeadCodeReplacement,
    "anchors": quantizers.AnchorUpdate,
    "split": quantizers.CodeSplitting,
}
FINAL_BATCHES = 64
DALLE = (1.0, 1 / 16)  # the annealing range of DALL·E's dVAE, Ramesh et al. 2021


@dataclass(frozen=True)
class Aids:
    """Optional steps during training that help the codes.

    warm_start  initialize the codes by k-means on the untrained encoder's outputs for the first batches; training
                then uses the same batches
    replace     after each step: "dead" for DeadCodeReplacement, "anchors" for AnchorUpdate, "split" for
                CodeSplitting, None for none of them
    anneal      temperatures of a Gumbel quantizer at the first and the last step, with exponential decay in
                between; None to keep the constructor's temperature
    decay_to    decay of moving averages at the last step, by a cosine from the constructor's; None to keep that
    final_means after the last step, set the codes to the means of the vectors of the last FINAL_BATCHES batches
    harden      the hardness of interpolated quantizers rises from 0 to 1 over the first half of the steps
    """

    warm_start: bool = False
    replace: str | None = None
    anneal: tuple[float, float] | None = DALLE
    decay_to: float | None = None
    final_means: bool = False
    harden: bool = False

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

    def decays(self, model: nn.Module, steps: int) -> list[CosineDecay]:
        """Return one schedule for each outermost quantizer in the model that has a decay, alone or inside."""
        if self.decay_to is None:
            return []
        return [
            CosineDecay(quantizer, start=decay, end=self.decay_to, steps=steps)
            for quantizer in outermost(model).values()
            if (decay := decay_of(quantizer)) is not None
        ]

    def hardness(self, model: nn.Module, steps: int) -> list[LinearHardness]:
        """Return one schedule for all interpolated quantizers in the model, if one is requested.

        Raises: InputError for a model without any.
        """
        if not self.harden:
            return []
        try:
            return [LinearHardness(model, start=0.0, end=1.0, steps=max(1, steps // 2))]
        except ValueError as error:
            raise InputError(f"--quantizers: got harden=True; {error}") from None

    def helpers(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[Any]:
        """Return the stateful objects whose `step()` must be called after each optimizer step."""
        replacement = self.replacement(model, optimizer)
        schedules = [
            *self.temperatures(model, steps),
            *self.decays(model, steps),
            *self.hardness(model, steps),
        ]
        last = [FinalMeans(model, steps)] if self.final_means else []
        return [*([] if replacement is None else [replacement]), *schedules, *last]


class FinalMeans:
    """Calls `final_means` after the last step, on the inputs of the model in the last FINAL_BATCHES steps."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        tables_of(model)  # raises before the training, not after it
        self.model = model
        self.steps = steps
        self.count = 0
        self.inputs: list[torch.Tensor] = []
        self.handle = model.register_forward_pre_hook(self._store)

    def _store(self, model: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if model.training and self.count >= self.steps - FINAL_BATCHES:
            self.inputs.append(arguments[0].detach())

    def step(self) -> None:
        """Count a step."""
        self.count += 1
        if self.count == self.steps:
            self.handle.remove()
            quantizers.final_means(self.model, self.inputs)
            self.inputs = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {"count": self.count, "inputs": list(self.inputs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state in a checkpoint."""
        device = next(self.model.parameters()).device
        self.count, self.inputs = state["count"], [each.to(device) for each in state["inputs"]]


def decay_of(quantizer: nn.Module) -> float | None:
    """Return the decay of the moving averages in a quantizer, or None if it has none."""
    decays = (part.decay for part in quantizer.modules() if isinstance(part, quantizers.EMAVectorQuantizer))
    return next(decays, None)


def split_aids(options: dict[str, Any]) -> tuple[Aids, dict[str, Any]]:
    """Separate the training aids from a variant's constructor options.

    Raises: InputError for an invalid value of an aid.
    """
    others = dict(options)
    warm_start, replace = others.pop("warm_start", False), others.pop("replace", None)
    anneal, decay_to = others.pop("anneal", DALLE), others.pop("decay_to", None)
    final_means, harden = others.pop("final_means", False), others.pop("harden", False)
    for name, value in (("warm_start", warm_start), ("final_means", final_means), ("harden", harden)):
        if not isinstance(value, bool):
            raise InputError(f"--quantizers: got {name}={value}; expected True or False")
    if replace is not None and replace not in REPLACEMENTS:
        raise InputError(f"--quantizers: got replace={replace}; expected one of {', '.join(REPLACEMENTS)}")
    if anneal is not None and not _is_range(anneal):
        raise InputError(
            f"--quantizers: got anneal={anneal}; expected two temperatures above 0, such as (1,0.5), or None"
        )
    if decay_to is not None and not (isinstance(decay_to, int | float) and 0 <= decay_to <= 1):
        raise InputError(f"--quantizers: got decay_to={decay_to}; expected a number in [0, 1]")
    return Aids(warm_start, replace, anneal, decay_to, final_means, harden), others


def _is_range(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else ()
    return len(numbers) == 2 and all(isinstance(each, int | float) and 0 < each < math.inf for each in numbers)
