"""Schedules that set a quantizer's temperature, one step of training at a time."""

import abc
import math
from typing import Protocol

from quantizers.base import check_at_least


class HasTemperature(Protocol):
    """Whatever has a temperature that can be assigned, as GumbelQuantizer has."""

    @property
    def temperature(self) -> object: ...

    @temperature.setter
    def temperature(self, value: float) -> None: ...


class TemperatureSchedule(abc.ABC):
    """Moves `quantizer.temperature` from `start` to `end` over `steps` calls of `step()`, then holds it.

    Construction sets the starting temperature. `state_dict` holds the count of steps; loading it sets the
    temperature that belongs to it.

    Raises: ValueError for a temperature that is not positive, or steps < 1.
    """

    def __init__(self, quantizer: HasTemperature, start: float, end: float, steps: int) -> None:
        if not (start > 0 and end > 0):
            raise ValueError(f"temperatures are {start!r} and {end!r}, expected numbers above 0")
        self.quantizer = quantizer
        self.start = start
        self.end = end
        self.steps = check_at_least("steps", steps, 1)
        self._set(0)

    @abc.abstractmethod
    def at(self, progress: float) -> float:
        """The temperature at a progress from 0 to 1."""

    def step(self) -> float:
        """Advance by one step of training; returns the temperature now in force."""
        return self._set(self.count + 1)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs to go on from here."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self._set(state["count"])

    def _set(self, count: int) -> float:
        self.count = count
        temperature = self.at(min(count / self.steps, 1.0))
        self.quantizer.temperature = temperature
        return temperature


class ExponentialTemperature(TemperatureSchedule):
    """τ = start · (end / start)^progress: the same factor at every step."""

    def at(self, progress: float) -> float:
        return self.start * math.exp(progress * math.log(self.end / self.start))


class CosineTemperature(TemperatureSchedule):
    """τ = end + (start − end) · (1 + cos(π · progress)) / 2: flat at both ends."""

    def at(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2
