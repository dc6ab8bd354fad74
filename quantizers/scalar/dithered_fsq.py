"""FSQ that trains with noise of a level's width in place of some roundings."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.core.arguments.checks import Level, Share, Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import register
from quantizers.core.samples import draw_samples
from quantizers.scalar.fsq import FSQ, Bound
from quantizers.scalar.noise import with_noise


class DitheredFSQ(FSQ):
    """FSQ that in training adds noise of one level's width to some samples, instead of rounding them.

    A decoder that has seen vectors between the levels does not depend on where the levels are: after training the
    number of levels can be changed, see `with_levels`.

    With u_i and half_i of FSQ, whose levels are 1/half_i apart, a sample is with probability noise_probability

        value_i = u_i + ε_i / half_i, ε_i ~ U(−½, ½)

    and otherwise its code, as in FSQ. Either way the value is at most half a step from u, and the gradient of u is
    the decoder's gradient (with the default `gradient`). Evaluation and `encode` round, and the indices are those
    of rounding in training too.

    **An exception to decode(indices) == quantized**: in training, unless noise_probability is 0, the value may be
    no code. The noise comes from the default generator of x's device.

    The authors' code for the paper leaves a quarter of the samples as they are, u itself. Here all that get no
    noise are rounded.

    Example:
        >>> import torch
        >>> from quantizers import DitheredFSQ
        >>> quantizer = DitheredFSQ(2, levels=[5, 5]).eval()
        >>> x = torch.tensor([[0.3, -1.2]])
        >>> quantizer(x).quantized, quantizer.with_levels([17, 17])(x).quantized
        (tensor([[ 0.5000, -1.0000]]), tensor([[ 0.2500, -0.8750]]))

    Args:
        dim: channels of x.
        levels, channel_dim, bound, gradient: as in FSQ.
        noise_probability: the probability of noise in training, in [0, 1].
        noise_by: what draws for itself: each "sample", the first axis of x, or each "vector".

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError as FSQ, and for a probability outside [0, 1].

    Source: Parker et al.: Scaling Transformers for Low-Bitrate High-Quality Speech Coding, 2024 (arXiv
        2411.19842).
    """

    @checked
    def __init__(
        self,
        dim: Size,
        levels: Sequence[Level],
        *,
        channel_dim: int = -1,
        bound: Bound = "tanh",
        gradient: str | Gradient = "straight_through",
        noise_probability: Share = 0.5,
        noise_by: Literal["sample", "vector"] = "sample",
    ) -> None:
        super().__init__(dim, levels, channel_dim=channel_dim, bound=bound, gradient=gradient)
        self.noise_probability = noise_probability
        self.noise_by = noise_by

    @property
    def value_is_code(self) -> bool:
        """Whether training adds no noise."""
        return not self.draws_in_training

    @property
    def draws_in_training(self) -> bool:
        """Whether training adds noise."""
        return self.noise_probability > 0

    def with_levels(self, levels: Sequence[int]) -> Self:
        """A quantizer with other levels and copies of the projections, for the encoder and decoder of this one.

        Odd counts of levels share one bound: u is the same function of z, up to a factor within 10⁻³, and the
        value is only rounded more or less finely. An even count L has no level at 1: u lies in [−1, 1 − 2/L], and
        a decoder that was trained for other counts gets values that are shifted and scaled by a little. With
        bound="tanh_twice" u depends on the count of levels.

        Args: levels: a count for each channel of the code.

        Raises: ValueError for another number of channels, and as the constructor.
        """
        other = type(self)(
            self.dim,
            levels,
            channel_dim=self.channel_dim,
            bound=self.bound,
            gradient=self.gradient,
            noise_probability=self.noise_probability,
            noise_by=self.noise_by,
        )
        if other.code_dim != self.code_dim:
            raise ValueError(f"levels has {other.code_dim} counts, expected {self.code_dim}, one for each channel")
        other.project_in, other.project_out = copy.deepcopy(self.project_in), copy.deepcopy(self.project_out)
        other.to(device=self._device, dtype=self._dtype)
        return other.train(self.training)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        output = super()._quantize(rows)
        if not (self.training and self.noise_probability > 0):
            return output
        bounded = self._bounded(rows.vectors)
        half = self._levels(bounded) // 2
        noisy = with_noise(bounded.detach(), half)
        value = noisy.where(self._draw_noisy(rows)[:, None], output.quantized.detach())
        return QuantizerOutput(self.gradient(bounded, value), output.indices, output.loss)

    def _draw_noisy(self, rows: Rows) -> Tensor:
        """Which of the N rows get noise, [N] bool."""
        if self.noise_by == "vector":
            return torch.rand_like(rows.vectors[:, 0]) < self.noise_probability
        return draw_samples(rows, self.noise_probability)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise_probability={self.noise_probability}, noise_by={self.noise_by!r}"


register("dithered_fsq", DitheredFSQ.from_options)
