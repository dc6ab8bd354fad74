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

        u = z / ‖z‖, q = sign(u) / √L, index = Σ_i 2^i · [u_i > 0], i from 0              (1)
        ‖u − q‖² = 2 − 2‖u‖₁ / √L ≤ 2 − 2/√L                                              (2)
        p_n = softmax over all 2^L codes c of −‖u_n − c‖² / T = 2 u_n·c / T + const       (3)
        loss = entropy_weight · Σ_g (mean_n H(p_ng) − diversity · H(mean_n p_ng))
               + commitment_weight · mean (u − sg[q])²                                    (4)

    in nats per vector, where p_ng is the distribution of the bits of group g under p_n. p_n is a product of
    σ(±4 u_i / (√L T)) over channels; the paper's τ is 2/T. The first entropy makes assignments certain; it is the
    same for any groups. The second makes codes equally frequent. Both are exact, and no table of vectors times
    codes is made; see `quantizers.scalar.bits` and `joint_entropy`. The paper approximates the second one by
    groups of one bit, its equation (8), and its authors train with groups of 9 or of one.

    **Groups.** The loss sees bits that copy each other within a group, and none across groups. For groups of one
    bit (`group_bits=1`) ten copies of a balanced bit are as good as ten independent bits, and training finds the
    copies. By default there is one group up to 14 bits, and above as few as possible of at most 14.

    **Data parallel.** The second entropy is of the batch of all ranks of `process_group`, by one all-reduce in
    each forward in training and one in its backward, so every rank must run both, even with an empty batch. After
    DDP's mean its gradient is that of one process on the whole batch. Evaluation needs no other rank.

    **What it needs.** The defaults are measured with a squared error, on photographs, in an encoder without
    normalization layers (`python -m benchmarks utilization`: 1,000 steps, 32 channels, K = 1024). A weight of 0.02
    gives 22.3 to 22.8 dB with 809 to 853 codes in use (three seeds; VQ: 22.0 to 22.6 dB, 18 to 31 codes), and 22.7
    dB with 5,252 codes of K = 16,384 (one seed; VQ: 22.8 to 23.1 dB, about 40 codes). With 8 channels it is 0.8 dB
    below VQ at K = 1024 (22.4 to 22.7 dB, 595 to 618 codes, three seeds) and 1.5 dB at 16,384 (one seed). Without
    the entropies, by a weight of 0, it has 22.8 dB and 240 codes; with groups of one bit and a weight of 0.1, 16.6
    dB and about 20.

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
        entropy_weight, diversity: see above. They may be assigned at any time, as `quantizers.schedules` does.
        temperature: T > 0. Default: 1/L, at which a channel at its code has probability σ(4) of that bit for any
            L.
        commitment_weight: see above; the paper has no such term.
        group_bits: bits in a group, a divisor of L and at most 24; see above.
        process_group: the ranks that share the batch entropy: "world" for all, a `torch.distributed` group, or
            None for this rank alone. May be assigned later.

    `quantizers.scalar.published` has the settings of published models.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (which may be negative).

    Raises: ValueError for another codebook size, temperature ≤ 0, an unknown gradient, or other groups; TypeError
        for another process_group.

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
        entropy_weight: Finite = 0.02,
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
        self._side = self.code_dim**-0.5  # here, since graphs of torch 2.4 with free sizes do not know the power

    @property
    def _value(self) -> float:
        return float(self._side)

    def _vectors(self, z: Tensor) -> Tensor:
        return normalize(z)
