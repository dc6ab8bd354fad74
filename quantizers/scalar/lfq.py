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

        q_i = sign(z_i), index = Σ_i 2^i · [z_i > 0], i from 0                            (1)
        p_n = softmax over c of −‖z_n − c‖² / T                                           (2)
        loss = entropy_weight · Σ_g (mean_n H(p_ng) − diversity · H(mean_n p_ng))
               + commitment_weight · mean (z − sg[q])²                                    (3)

    in nats per vector, where p_ng is the distribution of the bits of group g under p_n. A channel at zero, of
    either sign, gets −1 and bit 0. The first entropy makes assignments certain; it is the same for any groups. The
    second makes codes equally frequent. With one group (`group_bits` = L) it is the paper's, of all 2^L codes.
    Both are exact, and no table of vectors times codes is made; see `quantizers.scalar.bits` and `joint_entropy`.

    **Groups.** The loss sees bits that copy each other within a group, and none across groups. For groups of one
    bit (`group_bits=1`) ten copies of a balanced bit are as good as ten independent bits, and training finds the
    copies. By default there is one group up to 14 bits, and above as few as possible of at most 14.

    **Data parallel.** The second entropy is of the batch of all ranks of `process_group`, by one all-reduce in
    each forward in training and one in its backward, so every rank must run both, even with an empty batch. After
    DDP's mean its gradient is that of one process on the whole batch. Evaluation needs no other rank.

    **What it needs.** The defaults are measured with a squared error, on photographs, in an encoder without
    normalization layers (`python -m benchmarks utilization`: 1,000 steps, 32 channels, K = 1024). A weight of 0.1
    gives 21.7 to 22.1 dB with 461 to 880 codes in use (three seeds; VQ: 22.0 to 22.6 dB, 18 to 31 codes), and 22.7
    dB with 4,958 codes of K = 16,384 (one seed; VQ: 22.9 dB, about 40 codes). With 8 channels it is 1.5 dB below
    VQ at K = 1024 (21.8 dB, 275 to 475 codes, three seeds) and 1.9 dB at 16,384. A smaller weight lets bits die,
    that is, have one sign for all vectors: 271 codes are left at 0.05, and 20 at 0.02. BatchNorm on z is not
    needed; with it, 930 codes are used at 21.7 dB. Groups of one bit at a weight of 0.1 have 18.5 dB and 13 codes.

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
        entropy_weight, diversity, commitment_weight: see above. They may be assigned at any time, as
            `quantizers.schedules` does.
        temperature: T > 0. A channel at its code has probability σ(4/T) of that bit. Other implementations often
            use 0.01, at which the entropies have no gradient beyond |z| of about 0.03.
        group_bits: bits in a group, a divisor of L and at most 24; see above.
        process_group: the ranks that share the batch entropy: "world" for all, a `torch.distributed` group, or
            None for this rank alone. May be assigned later.

    `quantizers.scalar.published` has the settings of published models.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (which may be negative).

    Raises: ValueError for another codebook size, temperature ≤ 0, an unknown gradient, or other groups; TypeError
        for another process_group.

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
