"""Levels that stand evenly from −1 to 1, and the bound whose image their cells share out evenly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quantizers.core.arguments.configurable import configurable
from quantizers.kernels.common.vectors import integers
from quantizers.kernels.levels.digits import digit_weights


def soft_clamp(z: Tensor, levels: Tensor, slope: float = 1.0) -> Tensor:
    """Return c tanh(slope · z / c) of z [..., d], with c = L / (L − 1), the outer edges of the outermost cells."""
    edge = levels.to(z.dtype) / (levels - 1).to(z.dtype)
    return edge * (slope * z / edge).tanh()


def round_symmetric(bounded: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of a vector [..., d] in the units of the codes, and its index [...]."""
    half = (levels - 1).to(bounded.dtype) / 2
    digits = (bounded * half + half + 0.5).floor().to(torch.int64)
    digits = digits.clamp(min=0).minimum(levels - 1)
    return symmetric_values(digits, levels, bounded.dtype), (digits * digit_weights(levels)).sum(-1)


def symmetric_values(digits: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return code values in [−1, 1] of digits 0 … L−1, [..., d]: (2 digit − (L − 1)) / (L − 1)."""
    steps = levels - 1
    return (2 * digits - steps).to(dtype) / steps.to(dtype)


@configurable("levels")
class SoftClamp(nn.Module):
    """z [..., d] ↦ c tanh(z / c), with c_i = L_i / (L_i − 1): the `entry` of residual stages of symmetric FSQ.

    A stage's cells then share out the image of this bound, and each cell has the shape of the whole: the next
    stage, with a scale smaller by L_i, covers it exactly.

    Args:
        levels: L_i of each channel.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)

    def forward(self, z: Tensor) -> Tensor:
        return soft_clamp(z, integers(self.levels, z.device))

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
