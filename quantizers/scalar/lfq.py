"""Lookup-free quantization: a code is the sign of each channel."""

from torch import Tensor

from quantizers.core.arguments.checks import Finite, Positive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.scalar.bits import BinaryQuantizer


@register("lfq")
class LFQ(BinaryQuantizer):
    """Lookup-free quantization: the code of a vector is the sign of each of its L = log₂ K channels.

    There is no codebook to learn; an entropy loss makes each assignment certain and all codes equally frequent.

    §3.1 of the paper, with logits over all 2^L codes c:

        q_i = sign(z_i), index = Σ_i 2^i · [z_i > 0], i from 0
        p_n = softmax over c of −‖z_n − c‖² / T
        loss = entropy_weight · (mean_n H(p_n) − diversity · Σ_i H(mean_n p_ni))
               + commitment_weight · mean (z − sg[q])²

    in nats per vector, where p_ni is bit i of p_n. A channel at zero, of either sign, gets −1 and bit 0. The first
    term is exact, a sum over bits (see `quantizers.scalar.bits`), and makes assignments certain. The second makes
    codes equally frequent; the paper takes the entropy of the mean of p_n, which needs a table of 2^L
    probabilities. **Here it is the sum of the bits' entropies, an upper bound**: it balances each bit and does not
    see correlations between bits. The mean is over the vectors of this process: with data parallelism each rank
    balances the bits of its own batch.

    Example:
        >>> import torch
        >>> from quantizers import LFQ
        >>> quantizer = LFQ(3, codebook_size=8)
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.2, -3.0, 1.5]]))
        >>> quantized, indices
        (tensor([[ 1., -1.,  1.]]), tensor([5]))

    Args:
        dim: channels of x. A code has L channels; where `dim` differs, x is projected.
        codebook_size: K, a power of two from 2 to 2⁶³.
        channel_dim: axis of x's channels.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., L].
        entropy_weight, diversity, commitment_weight: see above.
        temperature: T > 0. A channel at its code has probability σ(4/T) of that bit. Other implementations often
            use 0.01, at which the entropies have no gradient beyond |z| of about 0.03.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (which may be negative).

    Raises: ValueError for another codebook size, temperature ≤ 0, an unknown gradient.

    Source: Yu et al.: Language Model Beats Diffusion – Tokenizer is Key to Visual Generation, 2023 (arXiv
        2310.05737).
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
        temperature: Positive = 1.0,
        commitment_weight: Weight = 0.25,
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
            temperature=temperature,
            commitment_weight=commitment_weight,
            group_bits=group_bits,
            process_group=process_group,
        )

    @property
    def _value(self) -> float:
        return 1.0

    def _vectors(self, z: Tensor) -> Tensor:
        return z
