"""Dead codes are replaced with vectors of the batch."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.core.parallel import ProcessGroup
from quantizers.training.drawn_vectors import DrawnVectors
from quantizers.training.replacement import LEAST_CHOICES


class DeadCodeReplacement(DrawnVectors):
    """Replace codes whose running use u falls below a threshold with random vectors of the batch.

    A code that is nearest to no vector gets no gradient, and would stay unused. The new vectors have distinct
    values and are drawn at random from all ranks. If there are too few, the least used codes get them, and the
    others wait. A replaced code starts again with u = 1 and without moments in the optimizer. All other codes keep
    their exact values. A code that is never chosen is replaced after the first t steps with γᵗ < threshold.

    **Few vectors.** If a step has fewer vectors than the table has codes, as at the coarsest scale of a
    multi-scale quantizer, 1/(1−γ) steps may pass without a choice of a code that is used like all others. u then
    remembers more steps: so many that a code with u = 1 is chosen 10 times, or 1/(1−γ) times if this is less. With
    the defaults this concerns steps with fewer than K/10 vectors, where a code that is never chosen is replaced
    after the time in which a code with u = 1 would have been chosen 23 times.

    **Shared codebooks.** Each scale or stage has the same weight in u, and gives the same number of new vectors as
    long as it has enough: otherwise the codes of a scale with one vector per map would look unused beside scales
    with hundreds, and would be replaced with vectors of those.

        >>> import torch, quantizers
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16)
        >>> optimizer = torch.optim.Adam(quantizer.parameters())
        >>> replacement = quantizers.DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
        >>> output = quantizer(torch.ones(100, 4).cumsum(0))  # ... and a step of the optimizer
        >>> unused = 16 - output.indices.unique().numel()
        >>> replacement.step() >= unused
        True

    Source: Jukebox (Dhariwal et al. 2020, arXiv 2005.00341) and SoundStream (Zeghidour et al. 2021, arXiv
    2107.03312).

    Args:
        model, optimizer, decay, process_group: see Replacement.
        threshold: ≥ 0, compared with u, which is 1 for all codes if they are used equally.

    Raises: as Replacement; ValueError for a threshold that is negative or not finite.
    """

    initial_use: ClassVar[float] = 1.0
    least_choices: ClassVar[float] = LEAST_CHOICES
    moved_use: ClassVar[float | None] = 1.0

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        threshold: float = 0.1,
        decay: float = 0.99,
        process_group: ProcessGroup = "world",
    ) -> None:
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold is {threshold!r}, expected a finite number of at least 0")
        super().__init__(model, optimizer, decay=decay, process_group=process_group)
        self.threshold = threshold

    def _shares(self, use: Tensor) -> Tensor:
        return (use < self.threshold).to(use)
