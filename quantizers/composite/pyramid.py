"""A pyramid of resolutions over one, two or three axes: sizes, masked averages, interpolation."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import check_as, check_at_least, elements, shown

Interpolation = Literal["cubic", "linear", "nearest"]
LINEAR = ("linear", "bilinear", "trilinear")  # PyTorch's names by the number of axes

Size = tuple[int, ...]
"""A number of positions for each axis."""

Scale = tuple[Fraction, ...]
"""A size relative to the full one, for each axis."""

GivenScales = Sequence[float] | Sequence[Sequence[float]]
GivenSizes = Sequence[int] | Sequence[Sequence[int]]


def check_scales(scales: GivenScales, axes: int) -> tuple[Scale, ...]:
    """The scales as fractions, one for each axis.

    Args: scales: a number for all axes, or one for each of them, per scale.

    Raises: ValueError unless they rise to 1, where a scale may occur several times in a row.
    """
    given = [_for_each_axis("scales", scale, axes) for scale in elements(scales) or ()]
    rows: list[tuple[float, ...]] = [check_as(Sequence[float], "scales", row) for row in given]
    finite = bool(rows) and all(map(math.isfinite, itertools.chain(*rows)))
    fractions = tuple(tuple(Fraction(s).limit_denominator(1024) for s in row) for row in rows) if finite else ()
    if not fractions or min(fractions[0]) <= 0 or set(fractions[-1]) != {1} or not _never_fall(fractions):
        raise ValueError(f"scales are {_shown(scales)}, expected numbers above 0 that rise to 1")
    return fractions


def check_sizes(sizes: GivenSizes, full: Size, most: int) -> list[Size]:
    """The sizes of all scales of a call.

    Args:
        sizes: a number for all axes, or one for each of them, per scale.
        full: the size of x, with which they end.
        most: the number of scales of the quantizer.

    Raises: ValueError for sizes that do not ascend to x's, and for more of them than scales.
    """
    checked = list_sizes(sizes, len(full))
    if len(checked) > most:
        raise ValueError(f"got {len(checked)} sizes for {most} scales; expected at most one per scale")
    for size in checked:
        if any(own > whole for own, whole in zip(size, full, strict=True)):
            raise ValueError(f"sizes contain {size}, which is larger than x's size {tuple(full)}")
    if not _never_fall(checked):
        raise ValueError(
            f"sizes are {checked}, expected them to ascend: each at least as large as the one before on every axis"
        )
    if checked[-1] != tuple(full):
        raise ValueError(f"sizes end with {checked[-1]}, expected x's size {tuple(full)}")
    return checked


def list_sizes(sizes: GivenSizes, axes: int) -> list[Size]:
    """The sizes of scales, as numbers for all axes or one for each. Raises: ValueError for anything else."""
    given = elements(sizes)
    if not given:
        raise ValueError(f"sizes are {shown(sizes)}, expected the size of each scale, the coarsest first")
    rows = [_for_each_axis("sizes", size, axes) for size in given]
    return [tuple(check_at_least("each of sizes", number, 1) for number in row) for row in rows]


def is_list_of_sizes(size: object) -> bool:
    """Whether `size` lists the sizes of all scales, and not one number for each axis."""
    return any(elements(each) is not None for each in elements(size) or ())


def pyramid_sizes(full: Sequence[int], scales: Sequence[Scale]) -> list[Size]:
    """The size of each level of the pyramid: scale · size, rounded and at least 1, on each axis.

    >>> pyramid_sizes((16, 10), check_scales([0.25, 0.5, 1.0], 2))
    [(4, 3), (8, 5), (16, 10)]
    """
    return [tuple(_rounded(size, own) for size, own in zip(full, scale, strict=True)) for scale in scales]


def full_size(tokens: int, axes: int, scales: Sequence[Scale]) -> Size:
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


def as_vectors(grid: Tensor) -> Tensor:
    """The vectors [B · cells, C] of a grid [B, C, *size], cell by cell."""
    return grid.movedim(1, -1).reshape(-1, grid.shape[1])


def as_grid(vectors: Tensor, batch: int, size: Size) -> Tensor:
    """The inverse of `as_vectors`."""
    return vectors.reshape(batch, *size, vectors.shape[1]).movedim(-1, 1)


def for_each_map(values: Tensor, axes: int) -> Tensor:
    """One value for each of B maps, as [B, 1, ...], to combine it with grids [B, C, *size]."""
    return values.reshape(-1, *[1] * (axes + 1))


def pool(grid: Tensor, weight: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The mean of each cell over its positions that count, and whether it has any.

    Args:
        grid: [B, C, *full], zero where `weight` is zero.
        weight: zeros and ones, [B, 1, *full].
        size: the size of the level.

    Returns: [B, C, *size], and bool [B, 1, *size].
    """
    share = F.interpolate(weight, size=size, mode="area")
    return F.interpolate(grid, size=size, mode="area") / share.where(share > 0, 1.0), share > 0


def upsample(grid: Tensor, size: Size, interpolation: Interpolation) -> Tensor:
    """Interpolate [B, C, *level] to a size; a grid of that size is returned unchanged."""
    if tuple(grid.shape[2:]) == size:
        return grid
    if interpolation == "nearest":
        return F.interpolate(grid, size=size, mode="nearest-exact")
    if interpolation == "cubic":
        return _cubic(grid, size)
    return F.interpolate(grid, size=size, mode=LINEAR[len(size) - 1], align_corners=False)


def _cubic(grid: Tensor, size: Size) -> Tensor:
    """PyTorch's bicubic interpolation; on one or three axes by its two, one pair after the other."""
    if len(size) == 2:
        return F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    if len(size) == 1:
        return _cubic(grid[..., None], (size[0], 1))[..., 0]
    batch, channels, frames = grid.shape[:3]
    rows = _cubic(grid.flatten(1, 2), size[1:]).reshape(batch, channels, frames, -1)
    return _cubic(rows, (size[0], size[1] * size[2])).reshape(batch, channels, *size)


def _never_fall(rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether no number falls from one row to the next."""
    return all(
        low <= high for before, after in itertools.pairwise(rows) for low, high in zip(before, after, strict=True)
    )


def _for_each_axis(name: str, value: object, axes: int) -> list[Any]:
    """A number for each axis, from one for all or one for each of them. Raises: ValueError for another count."""
    numbers = elements(value)
    if numbers is None:
        return [value] * axes
    if len(numbers) != axes:
        raise ValueError(f"{name} contain {shown(value)}, expected one number, or one for each of {axes} axes")
    return numbers


def _shown(scales: GivenScales) -> str:
    return str(tuple(tuple(each) if isinstance(each, list) else each for each in scales))


def _rounded(size: int, scale: Fraction) -> int:
    cells = (2 * size * scale.numerator + scale.denominator) // (2 * scale.denominator)
    return cells + 1 // (cells + 1)  # max(1, cells), also of a size that is free in a graph
