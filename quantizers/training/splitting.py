"""Weak codes move beside strong ones, and each pair shares the vectors of the strong one."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.clustering.seeding import Group
from quantizers.clustering.spread import split
from quantizers.core.base import Quantizer
from quantizers.core.parallel import ProcessGroup
from quantizers.training.drawn_vectors import shared_generator
from quantizers.training.replacement import LEAST_CHOICES, Choices, Replacement, learned


class CodeSplitting(Replacement):
    """Split strong codes in two: codes whose running use u falls below a threshold move beside the most used ones.

    A weak code w and a strong code s become e_s ± offset · σ_s d_s, where d_s is a direction in which the vectors
    of s in the last forward spread widely, and σ_s their standard deviation along it. Each of the two gets half of
    the use that both had, and likewise half of the weight N of an EMA code, so that no vector is lost: the sums of
    u and of N over all codes stay. A code is strong if u ≥ max(1, 2 · threshold), so that neither half is weak.
    In one step a code is split at most once, the most used codes first, and the weakest codes move first. If more
    codes are weak than strong, the others wait. Once no code is weak, nothing moves any more.

    d_s comes from two steps of power iteration on the covariance of the n vectors that chose s, over all ranks,
    from a random direction. The covariance is taken around e_s + (n−1)/n · m, where m is the mean of the vectors'
    differences from e_s, so that the direction of a single vector is that from e_s to it. A code whose vectors are
    equal or lie on one side of it is not split: |(n−1)/n · m · d_s| must be at most σ_s > 0.

    If a step has few vectors, u remembers more steps, see DeadCodeReplacement.

    The codes of an EMAVectorQuantizer then move to the means of their halves at the rate 1 − its decay: begin with
    a small decay, see `schedules.CosineDecay`.

    Both codes start again without moments in the optimizer; all other codes keep their exact values.

        >>> import torch, quantizers
        >>> quantizer = quantizers.EMAVectorQuantizer(4, codebook_size=16)
        >>> optimizer = torch.optim.Adam([torch.zeros(1)])  # the codes are averages
        >>> splitting = quantizers.CodeSplitting(quantizer, optimizer, threshold=0.5, decay=0.0)
        >>> output = quantizer(5 + torch.randn(100, 4))  # ... and a step of the optimizer
        >>> splitting.step() > 0
        True

    e-means (arXiv 2611.09501) revives weak codes by splitting strong ones. Which codes are weak and strong, the
    direction and the length of the offset are choices of this library.

    Args:
        model, optimizer, decay, process_group: see Replacement.
        threshold: ≥ 0, compared with u, which is 1 for all codes if they are used equally.
        offset: > 0, in standard deviations. The means of the two halves of a normal distribution are √(2/π) ≈ 0.8
            standard deviations from its mean.

    Raises: as Replacement; ValueError for a threshold that is negative or not finite, and an offset that is not
        positive or not finite.
    """

    initial_use: ClassVar[float] = 1.0
    least_choices: ClassVar[float] = LEAST_CHOICES

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        threshold: float = 0.1,
        offset: float = 0.8,
        decay: float = 0.99,
        process_group: ProcessGroup = "world",
    ) -> None:
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold is {threshold!r}, expected a finite number of at least 0")
        if not 0 < offset < math.inf:
            raise ValueError(f"offset is {offset!r}, expected a finite number above 0")
        super().__init__(model, optimizer, decay=decay, process_group=process_group)
        self.threshold = threshold
        self.offset = offset

    def _replace(self, quantizer: Quantizer, use: Tensor, choices: Choices, group: Group) -> int:
        ascending = use.argsort(stable=True)
        ascending = ascending[learned(quantizer)[ascending]]
        weak = ascending[use[ascending] < self.threshold]
        strong = ascending.flip(0)
        strong = strong[use[strong] >= max(1.0, 2 * self.threshold)]
        if not len(weak) or not len(strong):
            return 0
        codes, draws = quantizer.codebook.detach(), shared_generator(use.device, group)
        pairs, placed = split(
            codes, weak, strong, choices.z, choices.indices, offset=self.offset, group=group, draws=draws
        )
        quantizer.share_weight(*pairs)
        positions = pairs.flatten()
        quantizer.place_codes(positions, placed)
        self._update_optimizer(quantizer, positions, torch.ones_like(use[positions]))
        use[positions] = (use[pairs].sum(0) / 2).repeat(2)
        return pairs.shape[1]
