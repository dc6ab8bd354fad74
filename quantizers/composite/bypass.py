"""Training in which some samples are not quantized."""

from typing import ClassVar

from torch import Tensor

from quantizers.composite.relaxed import RelaxedQuantizer
from quantizers.core.arguments.checks import Probability
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import options_in_repr
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.registry import register
from quantizers.core.samples import draw_samples


class BypassQuantizer(RelaxedQuantizer):
    """A quantizer that some samples bypass in training, each with a probability: their value is not quantized.

    The decoder then also learns from vectors without quantization error, and the encoder gets their exact gradient
    from it. In evaluation every sample is quantized.

    For each sample of a batch, in a forward in training, with z and q in the code space of the quantizer inside:

        value = z with `probability`, with the decoder's gradient for z
                q otherwise, with the gradient of the quantizer inside

    Samples lie on the first axis of x: all vectors of a sample bypass, or none of them. Around "residual" a sample
    bypasses all stages or none. As a stage of a residual quantizer this one acts on the residual of its stage, so
    that nothing is left for the later stages. Their moving averages still learn the residuals that its codes
    leave.

    **Indices, loss and state** are those of the quantizer inside, for all samples: those that bypass it count in
    the commitment and codebook losses, in moving averages and in the replacement of dead codes, as in Mimi.

    z is not bounded, even where the codes are (FSQ, LFQ, BSQ), and not normalized where they have unit norm
    (distance="cosine"). Use a bounded or normalized z there.

    **An exception to decode(indices) == quantized**: in training the value of a sample that bypasses is no code.

    Example:
        >>> import torch, quantizers
        >>> quantizer = quantizers.create("bypass", 16, 64, quantizer="vq", probability=1.0)
        >>> x = torch.randn(10, 16)
        >>> torch.equal(quantizer(x).quantized, x)
        True
        >>> quantized, indices, loss = quantizer.eval()(x)
        >>> torch.equal(quantized, quantizer.decode(indices))
        True

    Args:
        quantizer: any quantizer with its channels last. After training, it can take this one's place:
            `quantizer.quantizer`.
        probability: of each sample to bypass, in [0, 1]. May be assigned.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices and loss as those of `quantizer`.

    Raises: ValueError for a probability outside [0, 1]; TypeError or ValueError for something other than a
        quantizer with its channels last.

    Source: Défossez et al.: Moshi, 2024 (arXiv 2410.00037), for Mimi, with a probability of 0.5.
    """

    assignable: ClassVar[tuple[str, ...]] = (*RelaxedQuantizer.assignable, "probability")

    @checked
    def __init__(self, quantizer: Quantizer, *, probability: Probability = 0.1, channel_dim: int = -1) -> None:
        super().__init__(quantizer, channel_dim=channel_dim)
        self.probability = probability

    @property
    def value_is_code(self) -> bool:
        """Whether no sample bypasses, and training returns the code of each index."""
        return self.probability == 0 and self.quantizer.value_is_code

    @property
    def draws_in_training(self) -> bool:
        """Whether a forward in training draws random numbers."""
        return self.probability > 0 or self.quantizer.draws_in_training

    def _relax(self, projected: Rows, codes: Tensor) -> Tensor:
        if self.probability == 0:
            return codes
        bypasses = draw_samples(projected, self.probability)
        return projected.vectors.where(bypasses[:, None], codes)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {options_in_repr(self, ('probability',))}"


register("bypass", BypassQuantizer.from_options)
