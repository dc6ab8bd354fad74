"""Lookup-free quantization: a code is the sign of each channel."""

from torch import Tensor

from quantizers.core.arguments.checks import Finite, Positive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.registry import register
from quantizers.scalar.bits import BinaryQuantizer


@register("lfq")
class LFQ(BinaryQuantizer):
    """LFQ: q = sign(z) in each of L = log₂ K channels; no codebook to learn, an entropy loss that uses it all.

    Yu et al.: Language Model Beats Diffusion – Tokenizer is Key to Visual Generation, 2023 (arXiv 2310.05737),
    §3.1. A channel at zero, of either sign, goes to −1 and bit 0. index = Σ 2^i · [z_i > 0], i from 0.

    loss = entropy_weight · (mean_n H(p_n) − diversity · Σ_i H(mean_n p_ni)) + commitment_weight · mean (z −
    sg[q])², in nats a vector, where p_n is the softmax of −‖z_n − c‖² / T over all 2^L codes c. The first term is
    exact, a sum over bits (`quantizers.scalar.bits`): it makes assignments sure. The second makes codes equally
    frequent; the paper has the entropy of the mean of p_n there, which takes a table of 2^L probabilities. **The
    sum of the bits' entropies stands for it, an upper bound**: it balances each bit and does not see that bits go
    together. The mean over vectors is that of this process: data parallel, each rank balances the bits of its own
    batch.

    A code has L channels; where `dim` differs, x is projected.

    Args:
        dim: channels of x. codebook_size: K, a power of two from 2 to 2⁶³. channel_dim: axis of x's channels.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., L].
        entropy_weight, diversity, commitment_weight: see above.
        temperature: T > 0. A channel at its code has probability σ(4 / T) of it. Elsewhere 0.01 is common, at
            which the entropies' gradient ends at |z| of about 0.03.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (which may be negative).

    Raises: ValueError for another codebook size, temperature ≤ 0, an unknown gradient.
    """

    loss_depends_on_batch = True

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
        )

    @property
    def _value(self) -> float:
        return 1.0

    def _vectors(self, z: Tensor) -> Tensor:
        return z
