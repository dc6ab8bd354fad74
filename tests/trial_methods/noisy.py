"""A method that draws random numbers in training."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from quantizers import VectorQuantizer
from quantizers.codebooks.options import VQOptions
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register


@register("trial_noisy")
class NoisySearchQuantizer(VectorQuantizer):
    """VQ that searches for the nearest code of z + noise · ε, ε ~ N(0, I), in training; of z in evaluation."""

    draws_in_training = True
    same_indices_in_training = False

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        noise: Weight = 0.5,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(dim, codebook_size, **options)
        self.noise = noise

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.training:
            return super()._assign(z, codebook, valid)
        searched = z.detach() + self.noise * torch.randn_like(z)
        return self._codes_and_losses(z, codebook, self._encode(searched))
