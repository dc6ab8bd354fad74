"""Schedules for the weights in a quantizer's loss."""

import math

from quantizers.training.schedules.base import Cosine, Linear, ModuleSchedule


class WeightSchedule(ModuleSchedule):
    """A schedule for a weight in the loss of a quantizer, or of every quantizer in a module, see ModuleSchedule.

    A checkpoint of the module does not contain the weight; loading the state of the schedule restores it.

    `torch.compile` compiles one more graph at the second value. In that graph the weight is an input, so there are
    no further ones.

    Args:
        module: a quantizer, or a module that contains quantizers.
        start, end, steps: see Schedule; weights are finite and at least 0.

    Raises: ValueError for a weight that is negative or not finite, steps < 1, or a module in which no quantizer
        has this weight.
    """

    def _check(self, start: float, end: float) -> None:
        if not (0 <= start < math.inf and 0 <= end < math.inf):
            weights = self.attribute.replace("_", " ")
            raise ValueError(f"{weights}s are {start!r} and {end!r}, expected finite numbers of at least 0")


class CommitmentSchedule(WeightSchedule):
    """A schedule for `commitment_weight`, see WeightSchedule.

    With a start of 0, the encoder first learns without a constraint from the codes.
    """

    attribute = "commitment_weight"


class LinearCommitment(Linear, CommitmentSchedule):
    """Change the weight by the same amount in every step: β = start + (end − start) · progress.

    >>> import quantizers
    >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=8)
    >>> schedule = quantizers.schedules.LinearCommitment(quantizer, start=0.0, end=0.5, steps=2)
    >>> quantizer.commitment_weight, schedule.step(), schedule.step(), schedule.step()
    (0.0, 0.25, 0.5, 0.5)
    """


class CosineCommitment(Cosine, CommitmentSchedule):
    """Follow half a cosine wave: β = end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""


class EntropySchedule(WeightSchedule):
    """A schedule for `entropy_weight`, such as LFQ's and BSQ's, see WeightSchedule.

    A start above the end spreads the vectors over the codes first, and then leaves them to the reconstruction.
    """

    attribute = "entropy_weight"


class LinearEntropy(Linear, EntropySchedule):
    """Change the weight by the same amount in every step: start + (end − start) · progress.

    The authors' training of BSQ (bsq-vit) lets the weight fall to 0.1 from three times as much in 2,000 steps:

    >>> import quantizers
    >>> quantizer = quantizers.BSQ(18, codebook_size=2**18)
    >>> schedule = quantizers.schedules.LinearEntropy(quantizer, start=0.3, end=0.1, steps=2000)
    >>> quantizer.entropy_weight
    0.3
    """


class CosineEntropy(Cosine, EntropySchedule):
    """Follow half a cosine wave: end + (start − end) · (1 + cos(π · progress)) / 2, flat at both ends."""
