"""DiVeQ: the quantization error as a length that is differentiable, times a direction that is held constant."""

from typing import Unpack

import torch
from torch import Tensor

from quantizers.codebooks.options import SearchOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import FromZero, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import error_along, error_direction, exact_value
from quantizers.core.registry import register


@register("diveq")
class DiVeQ(VectorQuantizer):
    """DiVeQ: nearest code, with the gradient of z + ‖e − z‖ · sg[(e − z + v) / ‖e − z + v‖], v ~ N(0, σ²I).

    Vali, Bäckström, Solin: DiVeQ: Differentiable Vector Quantization Using the Reparameterization Trick, 2025
    (arXiv 2509.26469). Vectors and codes both learn from the decoder's gradient g, through the length of the
    error; there is no loss of its own. With d the direction of e − z and n that of e − z + v, z gets g − d (n·g)
    and the code d (n·g). A vector that is its own code passes g and moves no code.

    In the paper the decoder gets that expression's value, which lies beside the code by the angle between n and d.
    **Here the decoder gets the code itself**, and the noise is in the gradient alone: decode(indices) == quantized
    in training too. σ has the scale of the vectors, not of the error: where errors are below σ√D the direction is
    mostly noise. noise_variance=0 is the paper's DiVeQ-detach. Evaluation draws no noise.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        noise_variance: σ² ≥ 0; the paper's choice is 10⁻³, which its published code takes for σ.
        commitment_weight, codebook_weight: of VQ's losses, which the paper does without.
        regularizers: as in VectorQuantizer.

    The noise follows the default generator of x's device: `torch.manual_seed` makes a run repeatable.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, an unknown distance, noise_variance below 0.
    """

    draws_in_training = True

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        noise_variance: FromZero = 1e-3,
        commitment_weight: Weight = 0.0,
        codebook_weight: Weight = 0.0,
        **options: Unpack[SearchOptions],
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            **options,
        )
        self.noise_variance = noise_variance

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        noisy = self.training and self.noise_variance > 0
        noise = self.noise_variance**0.5 * torch.randn_like(z) if noisy else None
        return exact_value(error_along(z, codes, error_direction(z, codes, noise)), codes.detach())
