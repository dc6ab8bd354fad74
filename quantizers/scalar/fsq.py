"""Finite scalar quantization: each channel is rounded to a few levels; the codebook is an implicit grid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Level, Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient, resolve_gradient, straight_through
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import register
from quantizers.kernels.levels.bound import bound_levels, clamp_levels, narrow_levels
from quantizers.kernels.levels.digits import level_values, round_bounded
from quantizers.kernels.levels.operation import round_levels
from quantizers.scalar.grid import gradient_in_repr
from quantizers.scalar.level_quantizer import LevelQuantizer
from quantizers.scalar.symmetric import round_symmetric, soft_clamp, symmetric_values

Bound = Literal["tanh", "ifsq", "clamp", "tanh_twice", "narrow"]
SLOPES = {"tanh": 1.0, "ifsq": 0.8, "tanh_twice": 1.0}  # 2σ(1.6 z) − 1 = tanh(0.8 z)

OTHER_BOUNDS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"clamp": clamp_levels, "narrow": narrow_levels}
"""The bounds that the operation `round_levels` does not have."""


class FSQ(LevelQuantizer):
    """Finite scalar quantization: bound each of d channels, and round it to one of a few levels.

    The codebook is the grid of all combinations of levels. Nothing about it is learned, and the loss is zero.

    With L_i levels in channel i, half = ⌊L_i/2⌋, an offset of ½ for even L_i (else 0), and the shift that maps
    z_i = 0 to 0:

        u_i = ((L_i − 1)/2 · (1 + 10⁻³) · tanh(z_i + shift_i) − offset_i) / half_i
        q_i = round(u_i · half_i) / half_i
        index = Σ_i digit_i · Π_{j<i} L_j, where digit_i = q_i · half_i + half_i

    For two levels alone the paper's shift is left out: it would put the threshold at z = −3.8. With
    gradient="straight_through" the gradient of z is the decoder's gradient times the derivative of the bound.

    Bounds:
        "tanh": the equation above.
        "ifsq": 2σ(1.6 z) − 1 instead of tanh (arXiv 2601.17124), which is closer to uniform for Gaussian z. The
            levels are equally likely only from about a hundred levels on, because the outermost bins have half
            the width, and tanh's heavier tails fill them: for N(0, 1) and five levels, tanh gives 2.31 bits and
            ifsq 2.22, of 2.32; for 256 levels 7.96 and 7.97, of 8.
        "clamp": cuts z off at the outermost levels and is linear between them, for vectors that are bounded
            already, such as those of the later stages of residual quantization.
        "tanh_twice": the equation above for z' instead of z, where z'_i = u_i · half_i is what the equation gives
            for z, in units of one level. The speech codecs X-Codec 2 and NeuCodec were trained with it, and it is
            there to read their checkpoints. For three levels or more in each channel; the threshold between two
            levels would be far from 0.
        "narrow": that of the paper's first version (arXiv 2309.15505v1), for models that were trained with it,
            such as NeMo's codecs: u_i = (h_i · tanh(z_i + shift_i) − offset_i) / half_i with
            h_i = (L_i − 1)/2 · (1 − 10⁻³) and shift_i = tan(offset_i / h_i), for two levels too.

    **Symmetric levels.** By the equations above, an even number of levels has one at 0 and none at 1. With
    symmetric=True the levels stand evenly from −1 to 1, as in Parker et al. 2024 (arXiv 2411.19842, §3.2), where
    u_i is tanh(z_i). Here u_i reaches as far beyond the outermost levels as the edges between levels are from
    them, so that all cells have one width:

        u_i = c_i · tanh(z_i / c_i), c_i = L_i / (L_i − 1)
        q_i = 2 digit_i / (L_i − 1) − 1, digit_i = ⌊(u_i + 1) (L_i − 1)/2 + ½⌋

    The other bounds change u as they do above, and "clamp" cuts z off at −1 and 1; there is no "narrow".

    Example:
        >>> import torch
        >>> from quantizers import FSQ
        >>> quantizer = FSQ(3, levels=[7, 5, 5])
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.0, 9.0, -9.0]]))
        >>> quantized, indices
        (tensor([[ 0.,  1., -1.]]), tensor([31]))
        >>> torch.equal(quantizer.decode(indices), quantized)
        True

    Args:
        dim: channels of x.
        levels: L_i ≥ 2 for each channel of the code; their product, the codebook size, is at most 2⁶³.
            A code has len(levels) channels; where `dim` differs, x is projected.
        channel_dim: axis of x's channels.
        bound: "tanh", "ifsq", "clamp", "tanh_twice" or "narrow".
        gradient: "straight_through", "rotation", "reflection" or a function (u, codes) → [..., d], u bounded.
        symmetric: whether the levels stand evenly from −1 to 1.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError for empty levels, a level outside [2, 2²⁴], a product above 2⁶³, an unknown bound, two
        levels with "tanh_twice", and symmetric levels with "narrow".

    Source: Mentzer et al.: Finite Scalar Quantization: VQ-VAE Made Simple, 2023 (arXiv 2309.15505).
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
        symmetric: bool = False,
    ) -> None:
        super().__init__(dim, levels, channel_dim=channel_dim)
        if bound == "tanh_twice" and min(self.level_counts) < 3:
            raise ValueError(
                f"levels are {self.level_counts}, expected at least 3 in each channel with bound='tanh_twice'"
            )
        if bound == "narrow" and symmetric:
            raise ValueError("symmetric is True, expected False with bound='narrow'")
        self.bound = bound
        self.gradient = resolve_gradient(gradient)
        self.symmetric = symmetric

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z = rows.vectors
        if self._rounds_apart:
            bounded = self._bounded(z)
            codes, indices = self._round(bounded.detach())
            return QuantizerOutput(self.gradient(bounded, codes), indices, z.new_zeros(()))
        codes, indices = round_levels(self._entered(z), self.level_counts, SLOPES[self.bound])
        if self.gradient is not straight_through:  # the gradient of the operation itself
            codes = self.gradient(self._bounded(z), codes.detach())
        return QuantizerOutput(codes, indices, z.new_zeros(()))

    @property
    def _rounds_apart(self) -> bool:
        """Whether the bound is not that of the operation that bounds and rounds in one pass."""
        return self.symmetric or self.bound not in SLOPES

    def _entered(self, z: Tensor) -> Tensor:
        """What the last bound is applied to: z, or z' of "tanh_twice"; differentiable in z."""
        if self.bound != "tanh_twice":
            return z
        levels = self._levels(z)
        steps = (levels - 1) / 2 if self.symmetric else levels // 2  # from 0 to 1, in the units of the codes
        return self._bound_once(z) * steps.to(z.dtype)

    def _bound_once(self, z: Tensor) -> Tensor:
        bound = soft_clamp if self.symmetric else bound_levels
        return bound(z, self._levels(z), SLOPES[self.bound])

    def _bounded(self, z: Tensor) -> Tensor:
        """u [..., d], in the units of the codes; differentiable in z."""
        if self.bound in SLOPES:
            return self._bound_once(self._entered(z))
        return z.clamp(-1, 1) if self.symmetric else OTHER_BOUNDS[self.bound](z, self._levels(z))

    def _round(self, bounded: Tensor) -> tuple[Tensor, Tensor]:
        """The codes [..., d] of u, and their indices [...]."""
        return (round_symmetric if self.symmetric else round_bounded)(bounded, self._levels(bounded))

    def _encode(self, z: Tensor) -> Tensor:
        if self._rounds_apart:
            return self._round(self._bounded(z))[1]
        return round_levels(self._entered(z), self.level_counts, SLOPES[self.bound])[1]

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        values = symmetric_values if self.symmetric else level_values
        return values(digits, self._levels(digits), dtype)

    @property
    def _index_rule(self) -> dict[str, Any]:
        grid = {"symmetric": True} if self.symmetric else {}
        return {**super()._index_rule, "bound": self.bound, **grid}

    def extra_repr(self) -> str:
        symmetric = ", symmetric=True" if self.symmetric else ""
        options = f"bound={self.bound!r}{gradient_in_repr(self.gradient)}{symmetric}"
        return f"dim={self.dim}, levels={self.level_counts}, codebook_size={self.codebook_size}, {options}"


register("fsq", FSQ.from_options)
