"""Schedules for the decay of moving averages."""

from quantizers.training.schedules.base import Cosine, ModuleSchedule


class DecaySchedule(ModuleSchedule):
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

    def _check(self, start: float, end: float) -> None:
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ValueError(f"decays are {start!r} and {end!r}, expected numbers in [0, 1]")


class CosineDecay(Cosine, DecaySchedule):
    """Follow half a cosine wave: γ = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends.

    The step size 1 − γ of the averages then follows half a cosine wave from 1 − start to 1 − end, as in e-means
    (arXiv 2611.09501), which combines it with CodeSplitting and `final_means`.

    >>> import quantizers
    >>> quantizer = quantizers.EMAVectorQuantizer(4, codebook_size=8)
    >>> schedule = quantizers.schedules.CosineDecay(quantizer, start=0.5, end=1.0, steps=2)
    >>> quantizer.decay, schedule.step(), schedule.step(), schedule.step()
    (0.5, 0.75, 1.0, 1.0)
    """
