"""CVQ-VAE: codes go to vectors of the batch, the further the less they are used."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.core.parallel import ProcessGroup
from quantizers.training.replacement import Replacement


class AnchorUpdate(Replacement):
    """CVQ-VAE: e_k ← (1 − α_k) e_k + α_k a_k in each step, with α_k = exp(−10 u_k / (1−γ) − ε).

    Zheng, Vedaldi: Online Clustered Codebook, 2023 (arXiv 2307.15139), whose N_k = u_k / K starts at 0. The less a
    code is used, the nearer it goes to its anchor a_k, a random vector of the batch; at γ = 0.99 equal use gives
    e⁻¹⁰⁰⁰. Anchors are distinct, of all ranks; where they are too few, the least used codes come first. Codes
    whose α_k vanishes in float32 get none. The paper compares ways to choose anchors, of which this is the random
    one; its contrastive loss is not part of this.

    Args:
        model, optimizer, decay, process_group: see Replacement. epsilon: ε ≥ 0, that of the published code.

    Raises: as Replacement; ValueError for an epsilon that is negative or not finite.
    """

    initial_use: ClassVar[float] = 0.0

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-3,
        process_group: ProcessGroup = "world",
    ) -> None:
        if not 0 <= epsilon < math.inf:
            raise ValueError(f"epsilon is {epsilon!r}, expected a finite number of at least 0")
        super().__init__(model, optimizer, decay=decay, process_group=process_group)
        self.epsilon = epsilon

    def _shares(self, use: Tensor) -> Tensor:
        return (-10 / (1 - self.decay) * use - self.epsilon).exp()
