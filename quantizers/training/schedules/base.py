"""What all schedules share: the steps, the curves, and the objects whose attribute changes."""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer


class Schedule(abc.ABC):
    """Move an attribute from `start` to `end` over `steps` calls of `step()`, then keep it at `end`.

    Construction sets the value to `start`. `state_dict` contains the number of steps so far; loading it also sets
    the value at that step. A subclass defines `attribute`, passes the objects that have it, and defines the curve.

    Args:
        holders: the objects whose attribute is set.
        start: the value at the beginning. end: the value after `steps` steps.
        steps: the number of steps from `start` to `end`.

    Raises: ValueError for steps < 1.
    """

    attribute: ClassVar[str]
    """The name of the attribute."""

    def __init__(self, holders: Sequence[object], start: float, end: float, steps: int) -> None:
        self.holders = holders
        self.start = start
        self.end = end
        self.steps = check_at_least("steps", steps, 1)
        self._set(0)

    @abc.abstractmethod
    def at(self, progress: float) -> float:
        """Return the value at a progress from 0 to 1."""

    def step(self) -> float:
        """Advance by one training step. Returns: the new value."""
        return self._set(self.count + 1)

    def state_dict(self) -> dict[str, int]:
        """Return the state to store in a checkpoint."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the state in a checkpoint, and set the value at that step."""
        self._set(state["count"])

    def _set(self, count: int) -> float:
        self.count = count
        value = self.at(min(count / self.steps, 1.0))
        for holder in self.holders:
            setattr(holder, self.attribute, value)
        return value


class Linear(Schedule):
    """Change the value by the same amount in every step: start + (end − start) · progress."""

    def at(self, progress: float) -> float:
        return self.start * (1 - progress) + self.end * progress  # exact at both ends


class Cosine(Schedule):
    """Follow half a cosine wave: end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""

    def at(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


class ModuleSchedule(Schedule):
    """A schedule for an attribute of a quantizer, or of every quantizer in a module that has it, see Schedule.

    A subclass also defines `_check`.

    Args:
        module: a quantizer, or a module that contains quantizers.
        start, end, steps: see Schedule.

    Raises: ValueError for a start or an end outside the attribute's range, steps < 1, or a module in which no
        quantizer has the attribute.
    """

    def __init__(self, module: nn.Module, start: float, end: float, steps: int) -> None:
        self._check(start, end)
        inside = [inner for inner in module.modules() if isinstance(inner, Quantizer)]
        holders = [quantizer for quantizer in inside if hasattr(quantizer, self.attribute)]
        if not holders:
            article = "an" if self.attribute[0] in "aeiou" else "a"
            raise ValueError(
                f"module is a {type(module).__name__}, in which no quantizer has {article} {self.attribute}"
            )
        super().__init__(holders, start, end, steps)

    @abc.abstractmethod
    def _check(self, start: float, end: float) -> None:
        """Raises: ValueError for a start or an end outside the attribute's range."""
