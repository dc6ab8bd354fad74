"""Schedules for the hardness of interpolated quantizers."""

from quantizers.training.schedules.base import Cosine, Linear, ModuleSchedule


class HardnessSchedule(ModuleSchedule):
    """A schedule for the `hardness` of an InterpolatedQuantizer, or of every one in a module, see Schedule.

    The hardness is part of the quantizer's `state_dict`, and `torch.compile` compiles no further graph for its
    values.

    Args:
        module: a quantizer, or a module that contains quantizers.
        start, end, steps: see Schedule; both values are in [0, 1].

    Raises: ValueError for a hardness outside [0, 1], steps < 1, or a module in which no quantizer has a
        `hardness`.
    """

    attribute = "hardness"

    def _check(self, start: float, end: float) -> None:
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ValueError(f"hardnesses are {start!r} and {end!r}, expected numbers in [0, 1]")


class LinearHardness(Linear, HardnessSchedule):
    """Change the hardness by the same amount in every step: a = start + (end − start) · progress.

    >>> import quantizers
    >>> quantizer = quantizers.create("interpolated", 4, 8, quantizer="vq")
    >>> schedule = quantizers.schedules.LinearHardness(quantizer, start=0.0, end=1.0, steps=2)
    >>> float(quantizer.hardness), schedule.step(), schedule.step(), schedule.step()
    (0.0, 0.5, 1.0, 1.0)
    """


class CosineHardness(Cosine, HardnessSchedule):
    """Follow half a cosine wave: a = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""
