"""NSVQ: in training the quantization error is replaced by noise of the same length."""

from typing import Unpack

import torch
from torch import Tensor

from quantizers.codebooks.options import SearchOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import error_along, error_direction, exact_value
from quantizers.core.registry import register
from quantizers.kernels.vectors import normalize


@register("nsvq")
class NSVQ(VectorQuantizer):
    """NSVQ: in training z + ‖e − z‖ · v/‖v‖ with v ~ N(0, I) and e the nearest code; in evaluation e.

    Vali, Bäckström: NSVQ: Noise Substitution in Vector Quantization for Machine Learning, IEEE Access 10, 2022.
    Vectors and codes both learn from the decoder's gradient g, through the length of the error; there is no loss
    of its own. With d the direction of e − z and n that of v, z gets g − d (n·g) and the code d (n·g).

    **In training the value is no code, by definition**: it lies anywhere on the sphere around z through the code,
    and decode(indices) gives the code instead. In evaluation the value is the code, and the gradient that of
    z + ‖e − z‖ sg[d], with the error's own direction in the place of the noise.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, which the value in training leaves, or
            "angle" for a search by angle alone.
        commitment_weight, codebook_weight: of VQ's losses, which the paper does without.
        regularizers: as in VectorQuantizer.

    The noise follows the default generator of x's device: `torch.manual_seed` makes a run repeatable.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1 or an unknown distance.
    """

    value_is_code = False
    draws_in_training = True

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
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

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        if self.training:
            return error_along(z, codes, normalize(torch.randn_like(z)))
        return exact_value(error_along(z, codes, error_direction(z, codes)), codes.detach())
