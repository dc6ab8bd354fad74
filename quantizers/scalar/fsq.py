"""Finite scalar quantization: each channel rounded to a few levels, the codebook an implicit grid."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Level, Size, check_at_least
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient, resolve_gradient, straight_through
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.kernels.ops.levels import round_levels
from quantizers.kernels.reference.levels import (
    bound_levels,
    clamp_levels,
    level_values,
    round_bounded,
)
from quantizers.scalar.grid import GridQuantizer

SLOPES = {"tanh": 1.0, "ifsq": 0.8}  # 2σ(1.6 z) − 1 = tanh(0.8 z)

# Table 1 of the paper.
PROPOSED_LEVELS = {
    2**8: (8, 6, 5),
    2**10: (8, 5, 5, 5),
    2**12: (7, 5, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**16: (8, 8, 8, 5, 5, 5),
}


class FSQ(GridQuantizer):
    """FSQ: bound d channels, round each to L_i levels; no codebook to learn, no loss.

    Mentzer et al.: Finite Scalar Quantization: VQ-VAE Made Simple, 2023 (arXiv 2309.15505). Channel i becomes
    u_i = ((L_i − 1)/2 · (1 + 10⁻³) · tanh(z_i + shift) − offset) / ⌊L_i/2⌋, with offset ½ for even L_i and the
    shift that maps 0 to 0; the code is the nearest multiple of 1/⌊L_i/2⌋; index = Σ digit_i · Π_{j<i} L_j.
    Two levels are the one case where the paper's shift is left out: it would put the threshold at z = −3.8.

    bound="ifsq" puts 2σ(1.6 z) − 1 in the place of tanh (arXiv 2601.17124), which for Gaussian z is closer to
    uniform. The levels are so only from about a hundred on: the outermost ones have bins of half the width, and
    tanh's heavier tails fill those (for N(0, 1) and five levels 2.31 bits with tanh, 2.22 with ifsq, of 2.32;
    for 256 levels 7.96 and 7.97, of 8).

    bound="clamp" cuts z off at the outermost levels and is linear between them: for vectors that are bounded
    already, as in the later stages of residual quantization.

    With gradient="straight_through" the gradient of z is the bound's derivative times the decoder's gradient.

    Args:
        dim: channels of x.
        levels: L_i ≥ 2 for each channel of the code; their product, the codebook size, is at most 2⁶³.
            A code has len(levels) channels; where `dim` differs, x is projected.
        channel_dim: axis of x's channels.
        bound: "tanh", "ifsq" or "clamp".
        gradient: "straight_through", "rotation", "reflection" or a function (u, codes) → [..., d], u bounded.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError for empty levels, a level outside [2, 2²⁴], a product above 2⁶³, an unknown bound.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        levels: Sequence[Level],
        *,
        channel_dim: int = -1,
        bound: Literal["tanh", "ifsq", "clamp"] = "tanh",
        gradient: str | Gradient = "straight_through",
    ) -> None:
        super().__init__(dim, levels, channel_dim=channel_dim)
        self.bound = bound
        self.gradient = resolve_gradient(gradient)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z = rows.vectors
        if self.bound == "clamp":
            levels = self._levels(z)
            bounded = clamp_levels(z, levels)
            codes, indices = round_bounded(bounded.detach(), levels)
            return QuantizerOutput(self.gradient(bounded, codes), indices, z.new_zeros(()))
        codes, indices = round_levels(z, self.level_counts, SLOPES[self.bound])
        if self.gradient is not straight_through:  # which the operation's own gradient is
            codes = self.gradient(bound_levels(z, self._levels(z), SLOPES[self.bound]), codes.detach())
        return QuantizerOutput(codes, indices, z.new_zeros(()))

    def _encode(self, z: Tensor) -> Tensor:
        if self.bound == "clamp":
            levels = self._levels(z)
            return round_bounded(clamp_levels(z, levels), levels)[1]
        return round_levels(z, self.level_counts, SLOPES[self.bound])[1]

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        return level_values(digits, self._levels(digits), dtype)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "bound": self.bound}

    def extra_repr(self) -> str:
        return f"dim={self.dim}, levels={self.level_counts}, bound={self.bound!r}"


def levels_for(codebook_size: int) -> tuple[int, ...]:
    """Level counts whose product is near a codebook size.

    The paper's own for 2⁸, 2¹⁰, 2¹², 2¹⁴ and 2¹⁶ (its table 1); else, by its rule of at least five levels a
    channel, the counts from 5 to 8 whose product is nearest in ratio, the fewest channels first. Below 25 codes,
    where two such channels are too many, one channel up to eight codes and two of three to five above.

    Raises: ValueError for a size below 2 or above 2⁶³.
    """
    codebook_size = check_at_least("codebook_size", codebook_size, 2)
    if codebook_size > 2**63:
        raise ValueError(f"codebook_size is {codebook_size}, expected at most 2**63")
    if codebook_size in PROPOSED_LEVELS:
        return PROPOSED_LEVELS[codebook_size]
    if codebook_size <= 8:
        return (codebook_size,)
    choices, channels = ((5, 4, 3), [2]) if codebook_size < 25 else ((8, 7, 6, 5), _channel_counts(codebook_size))
    candidates = (
        levels
        for count in channels
        for levels in itertools.combinations_with_replacement(choices, count)
        if math.prod(levels) <= 2**63
    )
    return min(candidates, key=lambda levels: abs(math.log(math.prod(levels) / codebook_size)))


def _channel_counts(codebook_size: int) -> list[int]:
    """How many channels of five to eight levels can come near that many codes."""
    fewest = math.floor(math.log(codebook_size, 8))
    most = math.ceil(math.log(codebook_size, 5))
    return list(range(max(fewest, 1), most + 1))
