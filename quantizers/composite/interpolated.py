"""Training in which quantization sets in gradually."""

import torch
from torch import Tensor

from quantizers.composite.relaxed import RelaxedQuantizer
from quantizers.core.arguments.checks import Share, check_as
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import options_in_repr
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.registry import register


class InterpolatedQuantizer(RelaxedQuantizer):
    """A quantizer whose value in training lies between vector and code, and can be annealed from one to the other.

    With z and q in the code space of the quantizer inside, and hardness a, a forward in training gives

        value = (1 − a) · z + a · q

    with the gradient of this equation: z gets (1 − a) · g, and what the quantizer inside passes on for a · g. The
    value is z itself for a = 0, and the code for a = 1. In evaluation it is always the code. A model trains from
    a = 0, an autoencoder without quantization, to a = 1 with a schedule that is stepped after each step of the
    optimizer:

        schedule = quantizers.schedules.LinearHardness(model, start=0.0, end=1.0, steps=10_000)

    **Indices, loss and state** are those of the quantizer inside, whatever a is: from the first step codes learn,
    and z is committed to them.

    z is not bounded, even where the codes are (FSQ, LFQ, BSQ), and not normalized where they have unit norm
    (distance="cosine"). Use a bounded or normalized z there.

    **An exception to decode(indices) == quantized**: in training with a < 1 the value is no code.

    Example:
        >>> import torch, quantizers
        >>> quantizer = quantizers.create("interpolated", 16, 64, quantizer="vq", hardness=0.5)
        >>> x = torch.randn(10, 16)
        >>> quantized, indices, loss = quantizer(x)
        >>> torch.equal(quantized, 0.5 * x + 0.5 * quantizer.decode(indices))
        True
        >>> quantizer.hardness = 1.0
        >>> torch.equal(quantizer(x).quantized, quantizer.decode(indices))
        True

    Args:
        quantizer: any quantizer with its channels last. After training, it can take this one's place:
            `quantizer.quantizer`.
        hardness: a in [0, 1], part of `state_dict`. Set it by assignment, `quantizer.hardness = 0.5`, or with one
            of `quantizers.schedules`.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices and loss as those of `quantizer`.

    Raises: ValueError for a hardness outside [0, 1]; TypeError or ValueError for something other than a quantizer
        with its channels last.
    """

    _hardness: Tensor

    @checked
    def __init__(self, quantizer: Quantizer, *, hardness: Share = 1.0, channel_dim: int = -1) -> None:
        super().__init__(quantizer, channel_dim=channel_dim)
        self.initial_hardness = hardness
        self.register_buffer("_hardness", torch.empty(()))

    def reset_parameters(self) -> None:
        """Reset the hardness. The quantizer inside resets itself."""
        self.hardness = self.initial_hardness

    @property
    def hardness(self) -> Tensor:
        """a, a 0-d tensor; assign a number to set it."""
        return self._hardness

    @hardness.setter
    def hardness(self, value: float) -> None:
        self._hardness.fill_(check_as(Share, "hardness", value))

    def _relax(self, projected: Rows, codes: Tensor) -> Tensor:
        hardness = self._hardness.to(codes.dtype, copy=True)  # it may be assigned before the backward
        return (1 - hardness) * projected.vectors + hardness * codes

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {options_in_repr(self, ('hardness',))}"


register("interpolated", InterpolatedQuantizer.from_options)
