"""A pyramid of resolutions over one, two or three axes: sizes, masked averages, interpolation."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import check_as

Interpolation = Literal["linear", "nearest"]
LINEAR = ("linear", "bilinear", "trilinear")  # PyTorch's names by the number of axes


def check_scales(scales: Sequence[float]) -> tuple[Fraction, ...]:
    """The scales as fractions. Raises: ValueError unless they rise to 1."""
    scales = check_as(Sequence[float], "scales", scales)
    finite = all(map(math.isfinite, scales))
    fractions = tuple(Fraction(scale).limit_denominator(1024) for scale in scales) if finite else ()
    rises = all(low < high for low, high in itertools.pairwise(fractions))
    if not fractions or fractions[0] <= 0 or fractions[-1] != 1 or not rises:
        raise ValueError(f"scales are {scales}, expected numbers above 0 that rise to 1")
    return fractions


def pyramid_sizes(full: Sequence[int], scales: Sequence[Fraction]) -> list[tuple[int, ...]]:
    """The size of each level of the pyramid: scale · size, rounded and at least 1, on each axis.

    >>> pyramid_sizes((16, 10), check_scales([0.25, 0.5, 1.0]))
    [(4, 3), (8, 5), (16, 10)]
    """
    return [tuple(_rounded(size, scale) for size in full) for scale in scales]


def full_size(tokens: int, axes: int, scales: Sequence[Fraction]) -> tuple[int, ...]:
    """The size, with all axes equal, whose levels together have that many cells.

    Raises: ValueError if there is none.
    """
    size, count = 0, 0
    while count < tokens:
        size += 1
        count = sum(count_cells(level) for level in pyramid_sizes((size,) * axes, scales))
    if count != tokens:
        raise ValueError(
            f"indices have {tokens} tokens, which no size of {axes} equal axes has at these scales; pass the size"
        )
    return (size,) * axes


def count_cells(size: Sequence[int]) -> int:
    """The number of cells of a level."""
    return math.prod(size)  # torch.Size.numel would tie an exported graph to one size


def pool(grid: Tensor, weight: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The mean of each cell over its positions that count, and whether it has any.

    Args:
        grid: [B, C, *full], zero where `weight` is zero.
        weight: zeros and ones, [B, 1, *full].
        size: the size of the level.

    Returns: [B, C, *size], and bool [B, 1, *size].
    """
    share = F.interpolate(weight, size=size, mode="area")
    return F.interpolate(grid, size=size, mode="area") / share.where(share > 0, 1.0), share > 0


def upsample(grid: Tensor, size: tuple[int, ...], interpolation: Interpolation) -> Tensor:
    """Interpolate [B, C, *level] to a size; a grid of that size is returned unchanged."""
    if tuple(grid.shape[2:]) == size:
        return grid
    if interpolation == "nearest":
        return F.interpolate(grid, size=size, mode="nearest-exact")
    return F.interpolate(grid, size=size, mode=LINEAR[len(size) - 1], align_corners=False)


def _rounded(size: int, scale: Fraction) -> int:
    cells = (2 * size * scale.numerator + scale.denominator) // (2 * scale.denominator)
    return torch.sym_max(1, cells)  # type: ignore[no-untyped-call, no-any-return]
