"""NSVQ: noise of the same length replaces the quantization error in training."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from quantizers.codebooks.options import GivenOptionalLossOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import error_along, error_direction, exact_value
from quantizers.core.registry import register
from quantizers.kernels.common.vectors import normalize


@register("nsvq")
class NSVQ(VectorQuantizer):
    """NSVQ: nearest code; in training, noise of the same length replaces the quantization error.

    Use it to train codes by the decoder's gradient alone, where the decoder may see noisy values in training.

    Vali, Bäckström: NSVQ: Noise Substitution in Vector Quantization for Machine Learning, IEEE Access 10, 2022.
    With e the nearest code,

        q = z + ‖e − z‖ · v/‖v‖,  v ~ N(0, I), in training; q = e in evaluation

    Let g be the decoder's gradient, d the direction of e − z and n the direction of v. Then z gets g − d (n·g) and
    the code d (n·g): both learn through the length of the error, and the method has no loss of its own.

    **In training the value is not a code, by definition**: it lies anywhere on the sphere around z through the
    code, and decode(indices) gives the code instead. In evaluation the value is the code, with the gradient of z
    + ‖e − z‖ sg[d]: the direction of the error takes the role of the noise.

    **It needs `DeadCodeReplacement`**, which the published module contains: a code that no vector chooses gets no
    gradient. In the benchmark's autoencoder (K 1024, D 32, 1000 steps, three seeds) 486 to 511 codes were in use
    with replacement, at 24.0 to 24.4 dB, and without it 39 codes, at 21.9 dB (one seed). Plain VQ reached 22.0 to
    22.6 dB, and 23.9 to 24.0 dB with replacement.

    Example:
        >>> quantizer = NSVQ(dim=16, codebook_size=64)
        >>> x = torch.randn(100, 16)
        >>> quantized, indices, _ = quantizer(x)
        >>> code = quantizer.decode(indices)
        >>> torch.equal(quantized, code), torch.allclose((quantized - x).norm(dim=-1), (code - x).norm(dim=-1))
        (False, True)

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean"; "cosine" for codes on the unit sphere, which values in training leave; or "angle"
            for a search by angle alone.
        commitment_weight, codebook_weight: of VQ's loss, which the paper does not use; 0 by default.
        regularizers, codebook, frozen: as in VectorQuantizer.

    The noise comes from the default generator of x's device: `torch.manual_seed` makes a run repeatable.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1 or an unknown distance.
    """

    value_is_code = False
    draws_in_training = True

    @checked
    def __init__(
        self, dim: Size, codebook_size: Size | None = None, **options: Unpack[GivenOptionalLossOptions]
    ) -> None:
        super().__init__(dim, codebook_size, **options)

    def _pass_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        if self.training:
            return error_along(z, codes, normalize(torch.randn_like(z)))
        return exact_value(error_along(z, codes, error_direction(z, codes)), codes.detach())
