"""CVQ-VAE: codes move to vectors of the batch, and further the less they are used."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from quantizers.core.parallel import ProcessGroup
from quantizers.training.drawn_vectors import DrawnVectors


class AnchorUpdate(DrawnVectors):
    """Move each code toward a vector of the batch in every step, as CVQ-VAE does.

    e_k ← (1 − α_k) e_k + α_k a_k with α_k = exp(−10 u_k / (1−γ) − ε): the less a code is used, the closer it moves
    to its anchor a_k. With γ = 0.99 and equal use, α_k is e⁻¹⁰⁰⁰. The anchors are distinct random vectors of the
    batch, drawn from all ranks. If there are too few, the least used codes get them. Codes whose α_k is zero in
    float32 get none.

        >>> import torch, quantizers
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16)
        >>> anchors = quantizers.AnchorUpdate(quantizer, torch.optim.Adam(quantizer.parameters()))
        >>> output = quantizer(torch.randn(100, 4))  # ... and a step of the optimizer
        >>> moved = anchors.step()

    Source: Zheng, Vedaldi: Online Clustered Codebook, 2023 (arXiv 2307.15139), whose N_k = u_k / K starts at 0. Of
    the ways to choose anchors that the paper compares, this is the random one. The paper's contrastive loss is not
    included.

    Args:
        model, optimizer, decay, process_group: see Replacement.
        epsilon: ε ≥ 0; the default is the value in the published code.

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
