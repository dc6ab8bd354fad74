"""Schedules for a quantizer's temperature, a weight of its loss, or its decay, which change it once per step."""

import abc
import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import nn

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer
from quantizers.core.wrappers import unwrapped


class HasTemperature(Protocol):
    """An object with a temperature that can be assigned, such as a GumbelQuantizer, an LFQ or a BSQ."""

    @property
    def temperature(self) -> object: ...

    @temperature.setter
    def temperature(self, value: float) -> None: ...


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


class CosineTemperature(TemperatureSchedule):
    """Follow half a cosine wave: τ = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""

    def at(self, progress: float) -> float:
        return _cosine(self.start, self.end, progress)


class WeightSchedule(Schedule):
    """A schedule for a weight in the loss of a quantizer, or of every quantizer in a module, see Schedule.

    A checkpoint of the module does not contain the weight; loading the state of the schedule restores it.

    `torch.compile` compiles one more graph at the second value. In that graph the weight is an input, so there are
    no further ones.

    Args:
        module: a quantizer, or a module that contains quantizers.
        start, end, steps: see Schedule; weights are finite and at least 0.

    Raises: ValueError for a weight that is negative or not finite, steps < 1, or a module in which nothing has
        this weight.
    """

    def __init__(self, module: nn.Module, start: float, end: float, steps: int) -> None:
        if not (0 <= start < math.inf and 0 <= end < math.inf):
            weights = self.attribute.replace("_", " ")
            raise ValueError(f"{weights}s are {start!r} and {end!r}, expected finite numbers of at least 0")
        holders = [inner for inner in module.modules() if hasattr(inner, self.attribute)]
        if not holders:
            article = "an" if self.attribute[0] in "aeiou" else "a"
            raise ValueError(
                f"module is a {type(module).__name__}, in which nothing has {article} {self.attribute}"
            )
        super().__init__(holders, start, end, steps)


class _Linear(Schedule):
    def at(self, progress: float) -> float:
        return self.start * (1 - progress) + self.end * progress  # exact at both ends


class _Cosine(Schedule):
    def at(self, progress: float) -> float:
        return _cosine(self.start, self.end, progress)


class CommitmentSchedule(WeightSchedule):
    """A schedule for `commitment_weight`, see WeightSchedule.

    With a start of 0, the encoder first learns without a constraint from the codes.
    """

    attribute = "commitment_weight"


class LinearCommitment(_Linear, CommitmentSchedule):
    """Change the weight by the same amount in every step: β = start + (end − start) · progress.

    >>> import quantizers
    >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=8)
    >>> schedule = quantizers.schedules.LinearCommitment(quantizer, start=0.0, end=0.5, steps=2)
    >>> quantizer.commitment_weight, schedule.step(), schedule.step(), schedule.step()
    (0.0, 0.25, 0.5, 0.5)
    """


class CosineCommitment(_Cosine, CommitmentSchedule):
    """Follow half a cosine wave: β = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""


class EntropySchedule(WeightSchedule):
    """A schedule for `entropy_weight`, such as LFQ's and BSQ's, see WeightSchedule.

    A start above the end spreads the vectors over the codes first, and then leaves them to the reconstruction.
    """

    attribute = "entropy_weight"


class LinearEntropy(_Linear, EntropySchedule):
    """Change the weight by the same amount in every step: start + (end − start) · progress.

    The authors' training of BSQ (bsq-vit) lets the weight fall to 0.1 from three times as much in 2,000 steps:

    >>> import quantizers
    >>> quantizer = quantizers.BSQ(18, codebook_size=2**18)
    >>> schedule = quantizers.schedules.LinearEntropy(quantizer, start=0.3, end=0.1, steps=2000)
    >>> quantizer.entropy_weight
    0.3
    """


class CosineEntropy(_Cosine, EntropySchedule):
    """Follow half a cosine wave: end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""


class DecaySchedule(Schedule):
    """A schedule for the `decay` γ of an EMAVectorQuantizer, or of every one in a module, see Schedule.

    While the encoder changes fast, a small decay lets the codes follow it. Later, a decay near 1 averages over
    many batches. A checkpoint of the module does not contain the decay; loading the state of the schedule restores
    it. `torch.compile` compiles one more graph at the second value, as for CommitmentSchedule.

    Args:
        module: an EMAVectorQuantizer, or a module that contains some, such as stages of a residual quantizer.
        start, end, steps: see Schedule; decays are in [0, 1].

    Raises: ValueError for a decay outside [0, 1], steps < 1, or a module in which no quantizer has a decay.
    """

    attribute = "decay"

    def __init__(self, module: nn.Module, start: float, end: float, steps: int) -> None:
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ValueError(f"decays are {start!r} and {end!r}, expected numbers in [0, 1]")
        holders = [
            inner for inner in module.modules() if isinstance(inner, Quantizer) and hasattr(inner, self.attribute)
        ]
        if not holders:
            raise ValueError(f"module is a {type(module).__name__}, in which no quantizer has a decay")
        super().__init__(holders, start, end, steps)


class CosineDecay(DecaySchedule):
    """Follow half a cosine wave: γ = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends.

    The step size 1 − γ of the averages then follows half a cosine wave from 1 − start to 1 − end, as in e-means
    (arXiv 2611.09501), which combines it with CodeSplitting and `final_means`.

    >>> import quantizers
    >>> quantizer = quantizers.EMAVectorQuantizer(4, codebook_size=8)
    >>> schedule = quantizers.schedules.CosineDecay(quantizer, start=0.5, end=1.0, steps=2)
    >>> quantizer.decay, schedule.step(), schedule.step(), schedule.step()
    (0.5, 0.75, 1.0, 1.0)
    """

    def at(self, progress: float) -> float:
        return _cosine(self.start, self.end, progress)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
