"""Schedules for temperatures."""

import math
from typing import Protocol

from torch import nn

from quantizers.core.wrappers import unwrapped
from quantizers.training.schedules.base import Cosine, Schedule


class HasTemperature(Protocol):
    """An object with a temperature that can be assigned, such as a GumbelQuantizer, an LFQ or a BSQ."""

    @property
    def temperature(self) -> object: ...

    @temperature.setter
    def temperature(self, value: float) -> None: ...


class TemperatureSchedule(Schedule):
    """A schedule for `quantizer.temperature`, see Schedule.

    Args:
        quantizer: a quantizer with a temperature, possibly in DistributedDataParallel or torch.compile.
        start, end, steps: see Schedule; temperatures are above 0.

    Raises: ValueError for a temperature that is not positive, steps < 1, or a quantizer that has no temperature.
    """

    attribute = "temperature"

    def __init__(self, quantizer: HasTemperature, start: float, end: float, steps: int) -> None:
        if not (start > 0 and end > 0):
            raise ValueError(f"temperatures are {start!r} and {end!r}, expected numbers above 0")
        inside = unwrapped(quantizer) if isinstance(quantizer, nn.Module) else quantizer
        if not hasattr(inside, self.attribute):
            raise ValueError(f"quantizer is {type(inside).__name__}, expected a quantizer with a temperature")
        self.quantizer = quantizer
        super().__init__([inside], start, end, steps)


class ExponentialTemperature(TemperatureSchedule):
    """Multiply the temperature by the same factor in every step: τ = start · (end / start)^progress.

    >>> import quantizers
    >>> quantizer = quantizers.GumbelQuantizer(4, codebook_size=8)
    >>> schedule = quantizers.schedules.ExponentialTemperature(quantizer, start=2.0, end=0.5, steps=2)
    >>> round(schedule.step(), 6), round(schedule.step(), 6)
    (1.0, 0.5)
    """

    def at(self, progress: float) -> float:
        return self.start * math.exp(progress * math.log(self.end / self.start))


class CosineTemperature(Cosine, TemperatureSchedule):
    """Follow half a cosine wave: τ = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""
