"""Finite scalar perturbation: equally likely levels, and noise of the size of their bins in training."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Level, Share, Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import register
from quantizers.scalar.level_quantizer import LevelQuantizer
from quantizers.scalar.noise import with_noise


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.erf(z * 0.5**0.5)


CDFS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": _normal_cdf,  # of variance 1
    "logistic": torch.sigmoid,  # π²/3
    "tanh": lambda z: torch.sigmoid(2 * z),  # (tanh z + 1) / 2, π²/12
}


class FSP(LevelQuantizer):
    """Finite scalar perturbation: map each channel to (0, 1) by a CDF, and divide that into L_i equal bins.

    In training, some vectors get noise of the size of a bin instead of their code. Nothing about the codebook is
    learned, and the loss is zero.

    Equations (13) to (18) of the paper, §3.3: with u_i = CDF(z_i),

        q_i = (⌊u_i L_i⌋ + ½) / L_i
        index = Σ_i ⌊u_i L_i⌋ · Π_{j<i} L_j

    Where z has the distribution of that CDF, u is uniform and all levels are equally likely. The code of a bin is
    its center in (0, 1), the best one for uniform u and within 1/(2 L_i) of it. z = 0 gives u = ½, which for an
    even L is the lower end of a bin.

    In training a vector is its code with probability quantize_probability, as in evaluation. Otherwise each
    channel is u + ε with ε ~ U(−1/(2L), 1/(2L)), the range of the code's error, or u itself if u + ε leaves
    [0, 1]; that step leaves a uniform u uniform. The gradient of u is the decoder's gradient in all cases, and
    the gradient of z is that times the density: a channel far out gets none.

    **An exception to decode(indices) == quantized**: in training, unless quantize_probability is 1, the value is
    not a code. The indices are the same as in evaluation. The noise comes from the default generator of x's
    device.

    The paper draws the mixture once per forward, and adds a loss that holds the batch's mean and variance of z at
    those of the CDF (equation (14)). Here each vector draws for itself, and **that loss is left to the caller**.

    Example:
        >>> import torch
        >>> from quantizers import FSP
        >>> quantizer = FSP(2, levels=[4, 5]).eval()
        >>> quantized, indices, loss = quantizer(torch.tensor([[9.0, 0.0]]))
        >>> quantized, indices
        (tensor([[0.8750, 0.5000]]), tensor([11]))

    Args:
        dim: channels of x.
        levels: L_i ≥ 2 for each channel of the code; their product, the codebook size, is at most 2⁶³.
            A code has len(levels) channels; where `dim` differs, x is projected.
        channel_dim: axis of x's channels.
        cdf: "normal" (of variance 1), "logistic" (1/(1 + e^−z), variance π²/3) or "tanh" ((tanh z + 1)/2, π²/12).
        quantize_probability: see above; ½ in the paper.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError for empty levels, a level outside [2, 2²³], a product above 2⁶³, an unknown cdf, a
        probability outside [0, 1].

    Source: Zhai et al.: VP-VAE: Rethinking Vector Quantization via Adaptive Vector Perturbation, 2026 (arXiv
        2602.17133).
    """

    largest_level = 2**23  # float32 represents the centers of no more bins

    @checked
    def __init__(
        self,
        dim: Size,
        levels: Sequence[Level],
        *,
        channel_dim: int = -1,
        cdf: Literal["normal", "logistic", "tanh"] = "normal",
        quantize_probability: Share = 0.5,
    ) -> None:
        super().__init__(dim, levels, channel_dim=channel_dim)
        self.cdf = cdf
        self.quantize_probability = quantize_probability

    @property
    def value_is_code(self) -> bool:
        """Whether training adds no noise."""
        return not self.draws_in_training

    @property
    def draws_in_training(self) -> bool:
        """Whether training adds noise."""
        return self.quantize_probability < 1

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z = rows.vectors
        u = CDFS[self.cdf](z)
        digits = self._digits(u)
        value = self._values(digits, u.dtype)
        if self.training and self.quantize_probability < 1:
            value = self._perturb(u.detach(), value)
        return QuantizerOutput(exact_value(u, value), self._index(digits), z.new_zeros(()))

    def _perturb(self, u: Tensor, codes: Tensor) -> Tensor:
        """For each row [d], either u with noise or the code."""
        moved = with_noise(u, self._levels(u))
        moved = moved.where((moved >= 0) & (moved <= 1), u)
        quantized = torch.rand_like(u[:, :1]) < self.quantize_probability
        return codes.where(quantized, moved)

    def _digits(self, u: Tensor) -> Tensor:
        # A CDF may round to 1, which belongs to the last bin.
        levels = self._levels(u)
        return (u * levels).floor().to(torch.int64).minimum(levels - 1)

    def _encode(self, z: Tensor) -> Tensor:
        return self._index(self._digits(CDFS[self.cdf](z)))

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * digits + 1).to(dtype) / (2 * self._levels(digits)).to(dtype)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "cdf": self.cdf}

    def extra_repr(self) -> str:
        quantized = f"quantize_probability={self.quantize_probability}"
        sizes = f"dim={self.dim}, levels={self.level_counts}, codebook_size={self.codebook_size}"
        return f"{sizes}, cdf={self.cdf!r}, {quantized}"


register("fsp", FSP.from_options)
