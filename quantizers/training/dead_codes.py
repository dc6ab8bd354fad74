"""Codes that are dead become vectors of the batch."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.core.parallel import ProcessGroup
from quantizers.training.replacement import Replacement


class DeadCodeReplacement(Replacement):
    """Codes whose running use u falls below a threshold become random vectors of the batch.

    As in Jukebox (Dhariwal et al. 2020, arXiv 2005.00341) and SoundStream (Zeghidour et al. 2021, arXiv
    2107.03312): a code that no vector is near gets no gradient, and stays where it is. The vectors are
    distinct in value and drawn at random, over all ranks; where they are too few, the least used codes come first
    and the others wait. A code that has moved starts anew: u = 1, no moments. All others stay, bit for bit. A code
    without any use is dead after the first t steps with γᵗ < threshold.

    Args:
        model, optimizer, decay, process_group: see Replacement. threshold: ≥ 0 of u, of which 1 is equal use.

    Raises: as Replacement; ValueError for a threshold that is negative or not finite.
    """

    initial_use: ClassVar[float] = 1.0
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
