"""Binary spherical quantization: the sign of each channel, on the unit sphere."""

from torch import Tensor

from quantizers.core.arguments.checks import Finite, Positive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.kernels.common.vectors import normalize
from quantizers.scalar.bits import BinaryQuantizer, bits_for


@register("bsq")
class BSQ(BinaryQuantizer):
    """Binary spherical quantization: divide z by its norm, and take the sign of each of its L = log₂ K channels.

    Vectors, codes and losses live on the unit sphere. There is no codebook to learn, and the error is bounded,
    which LFQ's is not.

    Equations (7) to (10) of the paper:

        u = z / ‖z‖, q = sign(u) / √L, index = Σ_i 2^i · [u_i > 0], i from 0
        ‖u − q‖² = 2 − 2‖u‖₁ / √L ≤ 2 − 2/√L
        p_n = softmax over all 2^L codes c of −‖u_n − c‖² / T = 2 u_n·c / T + const
        loss = entropy_weight · (mean_n H(p_n) − diversity · Σ_i H(mean_n p_ni))
               + commitment_weight · mean (u − sg[q])²

    in nats per vector. p_n is a product of σ(±4 u_i / (√L T)) over channels, and p_ni is its bit i; the paper's τ
    is 2/T. The first term is exact (see `quantizers.scalar.bits`). **The second is the paper's approximation**,
    an upper bound of the entropy of the mean of p_n, which takes bits for independent over the batch. The mean is
    over the vectors of this process: with data parallelism each rank balances the bits of its own batch.

    A channel at zero, of either sign, gets −1/√L, the bit that the paper gives it (whose sign of zero is +1); a
    zero vector has no direction and gets index 0. The gradient of q reaches u through `gradient`, and z through
    the division.

    Example:
        >>> import torch
        >>> from quantizers import BSQ
        >>> quantizer = BSQ(4, codebook_size=16)
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.2, -3.0, 1.5, 7.0]]))
        >>> quantized, indices
        (tensor([[ 0.5000, -0.5000,  0.5000,  0.5000]]), tensor([13]))

    Args:
        dim: channels of x. A code has L channels; where `dim` differs, x is projected.
        codebook_size: K, a power of two from 2 to 2⁶³.
        channel_dim: axis of x's channels.
        gradient: "straight_through", "rotation", "reflection" or a function (u, codes) → [..., L].
        entropy_weight, diversity: see above.
        temperature: T > 0. Default: 1/L, at which a channel at its code has probability σ(4) of that bit for any
        L. commitment_weight: see above; the paper has no such term.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (which may be negative).

    Raises: ValueError for another codebook size, temperature ≤ 0, an unknown gradient.

    Source: Zhao, Xiong, Krähenbühl: Image and Video Tokenization with Binary Spherical Quantization, 2024 (arXiv
        2406.07548).
    """

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: int,
        *,
        channel_dim: int = -1,
        gradient: str | Gradient = "straight_through",
        entropy_weight: Finite = 0.1,
        diversity: Weight = 1.0,
        temperature: Positive | None = None,
        commitment_weight: Weight = 0.0,
        group_bits: Size | None = None,
        process_group: ProcessGroup = "world",
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            channel_dim=channel_dim,
            gradient=gradient,
            entropy_weight=entropy_weight,
            diversity=diversity,
            temperature=1 / bits_for(codebook_size) if temperature is None else temperature,
            commitment_weight=commitment_weight,
            group_bits=group_bits,
            process_group=process_group,
        )

    @property
    def _value(self) -> float:
        return float(self.code_dim**-0.5)

    def _vectors(self, z: Tensor) -> Tensor:
        return normalize(z)
