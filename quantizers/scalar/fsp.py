"""Finite scalar perturbation: equally likely levels, and in training noise of the size of their bins."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Level, Share, Size
from quantizers.core.arguments.forwarding import check_forwarded, forwards
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import register
from quantizers.scalar.grid import GridQuantizer
from quantizers.scalar.levels import levels_from


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.erf(z * 0.5**0.5)


CDFS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": _normal_cdf,  # of variance 1
    "logistic": torch.sigmoid,  # π²/3
    "tanh": lambda z: torch.sigmoid(2 * z),  # (tanh z + 1) / 2, π²/12
}


class FSP(GridQuantizer):
    """FSP: u = CDF(z) in each channel, L_i bins of equal width; no codebook to learn, no loss.

    Zhai et al.: VP-VAE: Rethinking Vector Quantization via Adaptive Vector Perturbation, 2026 (arXiv 2602.17133),
    §3.3, equations (13) to (18). Where z has the distribution whose CDF it is, u is uniform and all levels are
    equally likely. The code of a bin is its centre, (⌊u L⌋ + ½) / L in (0, 1), the best for uniform u and within
    1/2L of it; index = Σ ⌊u_i L_i⌋ · Π_{j<i} L_j. z = 0 is u = ½, and with an even L the lower end of a bin.

    In training, with probability quantize_probability a vector is its code, as in evaluation; else each channel is
    u + ε with ε ~ U(−1/2L, 1/2L), which has the range of the code's error, or u itself where that leaves [0, 1].
    That step keeps uniform u uniform. The gradient of u is in all cases the decoder's, and that of z the density
    times it: a channel far out gets none.

    **An exception to decode(indices) == quantized**: in training, and unless quantize_probability is 1, the value
    is no code. The indices are those of evaluation. The noise follows the default generator of x's device.

    The paper draws the mixture in each forward, and adds a loss that keeps the batch's mean and variance of z at
    those of the CDF (its equation (14)). Here each vector draws for itself, and **that loss is left to the
    caller**.

    Args:
        dim: channels of x.
        levels: L_i ≥ 2 for each channel of the code; their product, the codebook size, is at most 2⁶³.
            A code has len(levels) channels; where `dim` differs, x is projected.
        channel_dim: axis of x's channels.
        cdf: "normal" (of variance 1), "logistic" (1/(1 + e^−z), variance π²/3) or "tanh" ((tanh z + 1)/2, π²/12).
        quantize_probability: see above; the paper's is ½.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError for empty levels, a level outside [2, 2²³], a product above 2⁶³, an unknown cdf, a
    probability outside [0, 1].
    """

    largest_level = 2**23  # float32 tells no more centres apart

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

    @classmethod
    @forwards()
    @checked
    def from_options(
        cls, dim: Size, codebook_size: int | None = None, levels: Sequence[Level] | None = None, **options: Any
    ) -> Self:
        """Build one from `levels`, or from a codebook size by `levels_for`.

        Args: options: further arguments of the constructor.

        Raises: ValueError unless exactly one of levels and codebook_size is given; as the constructor.
        """
        check_forwarded(cls.from_options, options)
        return cls(dim, levels_from("fsp", codebook_size, levels), **options)

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
        """Each row [d] of u with noise, or of the codes."""
        moved = u + (torch.rand_like(u) - 0.5) / self._levels(u)
        moved = moved.where((moved >= 0) & (moved <= 1), u)
        quantized = torch.rand_like(u[:, :1]) < self.quantize_probability
        return codes.where(quantized, moved)

    def _digits(self, u: Tensor) -> Tensor:
        # u is 1 itself where a CDF rounds to it.
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
        return f"dim={self.dim}, levels={self.level_counts}, cdf={self.cdf!r}"


register("fsp", FSP.from_options)
