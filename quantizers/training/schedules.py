"""Schedules that move a quantizer's temperature or commitment weight, one step of training at a time."""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import nn

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.wrappers import unwrapped


class HasTemperature(Protocol):
    """Whatever has a temperature that can be assigned, as GumbelQuantizer has."""

    @property
    def temperature(self) -> object: ...

    @temperature.setter
    def temperature(self, value: float) -> None: ...


class Schedule(abc.ABC):
    """Moves an attribute from `start` to `end` over `steps` calls of `step()`, then holds it.

    Construction sets the starting value. `state_dict` holds the count of steps; loading it sets the value that
    belongs to it. A subclass names the attribute, its holders, and the curve.

    Raises: ValueError for steps < 1.
    """

    attribute: ClassVar[str]

    def __init__(self, holders: Sequence[object], start: float, end: float, steps: int) -> None:
        self.holders = holders
        self.start = start
        self.end = end
        self.steps = check_at_least("steps", steps, 1)
        self._set(0)

    @abc.abstractmethod
    def at(self, progress: float) -> float:
        """The value at a progress from 0 to 1."""

    def step(self) -> float:
        """Advance by one step of training; returns the value now in force."""
        return self._set(self.count + 1)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs to go on from here."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self._set(state["count"])

    def _set(self, count: int) -> float:
        self.count = count
        value = self.at(min(count / self.steps, 1.0))
        for holder in self.holders:
            setattr(holder, self.attribute, value)
        return value


class TemperatureSchedule(Schedule):
    """Moves `quantizer.temperature`, see Schedule, also in DistributedDataParallel or torch.compile.

    Raises: ValueError for a temperature that is not positive, steps < 1, or a quantizer that has no temperature.
    """

    attribute = "temperature"

    def __init__(self, quantizer: HasTemperature, start: float, end: float, steps: int) -> None:
        if not (start > 0 and end > 0):
            raise ValueError(f"temperatures are {start!r} and {end!r}, expected numbers above 0")
        held = unwrapped(quantizer) if isinstance(quantizer, nn.Module) else quantizer
        if not hasattr(held, self.attribute):
            raise ValueError(
                f"quantizer is {type(held).__name__}, which has no temperature; expected one that has"
            )
        self.quantizer = quantizer
        super().__init__([held], start, end, steps)


class ExponentialTemperature(TemperatureSchedule):
    """τ = start · (end / start)^progress: the same factor at every step."""

    def at(self, progress: float) -> float:
        return self.start * math.exp(progress * math.log(self.end / self.start))


class CosineTemperature(TemperatureSchedule):
    """τ = end + (start − end) · (1 + cos(π · progress)) / 2: flat at both ends."""

    def at(self, progress: float) -> float:
        return _cosine(self.start, self.end, progress)


class CommitmentSchedule(Schedule):
    """Moves `commitment_weight`, see Schedule: of a quantizer, or of every one that a module holds.

    A start of 0 lets the encoder find its own way before the codes hold it back. A checkpoint of the module does
    not hold the weight; that of the schedule gives it back.

    `torch.compile` makes one more graph at the second value, and none for those after it: the weight has become an
    input of the graph.

    Raises: ValueError for a weight that is negative or not finite, steps < 1, or a module in which nothing has a
    `commitment_weight`.
    """

    attribute = "commitment_weight"

    def __init__(self, module: nn.Module, start: float, end: float, steps: int) -> None:
        if not (0 <= start < math.inf and 0 <= end < math.inf):
            raise ValueError(
                f"commitment weights are {start!r} and {end!r}, expected finite numbers of at least 0"
            )
        holders = [part for part in module.modules() if hasattr(part, self.attribute)]
        if not holders:
            raise ValueError(f"module is a {type(module).__name__}, and nothing in it has a commitment_weight")
        super().__init__(holders, start, end, steps)


class LinearCommitment(CommitmentSchedule):
    """β = start + (end − start) · progress."""

    def at(self, progress: float) -> float:
        return self.start * (1 - progress) + self.end * progress  # exact at both ends


class CosineCommitment(CommitmentSchedule):
    """β = end + (start − end) · (1 + cos(π · progress)) / 2: flat at both ends."""

    def at(self, progress: float) -> float:
        return _cosine(self.start, self.end, progress)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
