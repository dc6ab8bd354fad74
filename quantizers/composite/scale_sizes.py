"""The sizes of the scales of a map quantizer, and the tokens of each scale."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer
from quantizers.composite.pyramid import (
    GivenSizes,
    Scale,
    Size,
    check_sizes,
    count_cells,
    full_size,
    is_list_of_sizes,
    list_sizes,
    pyramid_sizes,
)
from quantizers.core.arguments.checks import check_size
from quantizers.core.layout import Rows
from quantizers.core.map_quantizer import MapQuantizer


class ScaleMaps(NamedTuple):
    """The tokens of the first scales of B maps."""

    tokens: list[Tensor]  # of each of them, [B, *size_k]
    sizes: list[Size]  # of all scales

    @property
    def size(self) -> Size:
        """The size of the maps, which is that of the last scale."""
        return self.sizes[-1]


class ScaleSizes(MapQuantizer, ComposedQuantizer):
    """A map quantizer with a component for each scale, whose tokens stand side by side, coarse to fine."""

    scales: tuple[Scale, ...]

    def scale_sizes(self, size: Sequence[int]) -> list[Size]:
        """The sizes of all scales, the coarsest first, for x of a size [axes]."""
        return pyramid_sizes(self._check_size(size), self.scales)

    def split(self, indices: Tensor, size: GivenSizes) -> list[Tensor]:
        """Split indices [..., L], of all scales or the first ones, into one map [..., *size_k] for each scale.

        Args: size: that of x, [axes], or the sizes of all scales.

        Raises: ValueError if the number of tokens does not fit the sizes.
        """
        return self._split(indices, self._all_sizes(size))

    def tokens_per_codebook(self, tokens: int) -> list[int]:
        """See `MapQuantizer.tokens_per_codebook`; there is one codebook per scale."""
        levels = pyramid_sizes(full_size(tokens, self.axes, self.scales), self.scales)
        return [count_cells(level) for level in levels]

    def _listed(self, sizes: GivenSizes | None) -> list[Size] | None:
        return None if sizes is None else list_sizes(sizes, self.axes)

    def _check_size(self, size: object) -> Size:
        checked: Size = check_size("size", size)
        if len(checked) != self.axes or min(checked) < 1:
            raise ValueError(f"size is {checked}, expected {self.axes} numbers of at least 1")
        return checked

    def _all_sizes(self, size: GivenSizes) -> list[Size]:
        """The sizes of all scales, from x's or from a list of them."""
        if not is_list_of_sizes(size):
            return self.scale_sizes(size)  # type: ignore[arg-type]
        return check_sizes(size, self._check_size(size[-1]), len(self.scales))

    def _sizes_of(self, projected: Rows) -> list[Size]:
        """The sizes of all scales in a call."""
        size = self._size(projected)
        if projected.sizes is None:
            return pyramid_sizes(size, self.scales)
        return check_sizes(projected.sizes, size, len(self.scales))

    def _size(self, projected: Rows) -> Size:
        if len(projected.shape) < self.axes:
            raise ValueError(
                f"x has {len(projected.shape)} axes beside its channels, expected at least {self.axes}"
            )
        size = tuple(projected.shape[-self.axes :])
        if min(size) < 1:
            raise ValueError(f"x has size {size}, expected at least 1 on each axis")
        return size

    def _split(self, indices: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """Split indices [..., L] of as many of the first scales as have L tokens together."""
        counts = [count_cells(level) for level in sizes]
        ends = [sum(counts[: n + 1]) for n in range(len(counts))]
        tokens = indices.shape[-1]
        if tokens not in ends:
            raise ValueError(
                f"indices have {tokens} tokens, expected {ends[-1]} for size {sizes[-1]}, or one of {ends[:-1]} "
                f"for its first scales: the scales have sizes {[*sizes]}"
            )
        used = ends.index(tokens) + 1
        maps = torch.split(indices, counts[:used], -1)
        return [own.reshape((*indices.shape[:-1], *level)) for own, level in zip(maps, sizes, strict=False)]

    def _check_maps(self, indices: Tensor, size: GivenSizes | None) -> ScaleMaps:
        """The tokens of each scale of indices [..., L], after all checks."""
        indices = MapQuantizer._check_indices(self, indices)  # the components check their own below
        sizes = self._all_sizes(full_size(indices.shape[-1], self.axes, self.scales) if size is None else size)
        maps = self._split(indices.reshape(-1, indices.shape[-1]), sizes)
        self._check_component_indices(maps)
        return ScaleMaps(maps, sizes)
