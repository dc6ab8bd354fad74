"""Multi-scale quantization: residuals over a pyramid of resolutions."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from quantizers.composite.composed import ComposedQuantizer, Initialize, check_component
from quantizers.composite.pyramid import (
    Interpolation,
    check_scales,
    count_cells,
    full_size,
    pool,
    pyramid_sizes,
    upsample,
)
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.core.arguments.checks import Size, check_size
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows
from quantizers.core.map_quantizer import MapQuantizer
from quantizers.core.method_calls import through_forward
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import call_widened
from quantizers.kernels.common.dispatch import without_autocast

CodesAndTokens = tuple[Tensor, Tensor]
"""Codes and indices of the cells of one scale."""

QuantizeCells = Callable[[int, RowQuantizer, Rows], CodesAndTokens]
"""Quantizes the cells of one scale, given the scale's position, its quantizer and the cells as rows."""


class MultiScaleQuantizer(MapQuantizer, ComposedQuantizer):
    """Multi-scale quantization: quantize the residual of a map on coarse to fine grids, as VAR does.

    At each scale the mean of the residual over the cells of a grid is quantized, and the codes are interpolated to
    full size and subtracted from the residual. The value is the sum of all interpolated codes.

    Algorithms 1 and 2 of the paper, with r_0 = z and scales k from the coarsest to the finest:

        u_k = blend(interpolate(Q_k(mean of r_k over each cell)))
        r_{k+1} = r_k − u_k
        value = Σ_k u_k, loss = Σ_k loss_k

    VAR passes the interpolated codes through a convolution: `blend`. Gradients follow the chain rule through these
    equations, as in ResidualQuantizer.

    x has `axes` spatial axes, the last of its leading ones: [..., T], [..., H, W] or [..., T, H, W] beside its
    channels. **Indices** are [..., L]: the tokens of all scales, the coarsest first, each in row-major order, as
    an autoregressive model reads them; `split` separates them. A cell gets −1 if all its positions are masked or
    not finite.

    Example:
        >>> import torch
        >>> from quantizers import FSQ, MultiScaleQuantizer
        >>> quantizer = MultiScaleQuantizer(2, [FSQ(2, [5, 5])] * 2, scales=[0.5, 1.0], axes=2)
        >>> quantized, indices, loss = quantizer(torch.zeros(1, 4, 4, 2))
        >>> quantized.shape, indices.shape
        (torch.Size([1, 4, 4, 2]), torch.Size([1, 20]))
        >>> [tokens.shape for tokens in quantizer.split(indices, (4, 4))]
        [torch.Size([1, 2, 2]), torch.Size([1, 4, 4])]

    Args:
        dim: channels of x; where it differs from the quantizers' dim, x is projected.
        quantizers: one for each scale, all of one `dim`. The same object several times is a shared codebook (VAR).
        scales: the size of each level relative to x's own, rising to 1. VAR's for 16 × 16 are n/16 for n in
            1, 2, 3, 4, 5, 6, 8, 10, 13, 16.
        axes: 1, 2 or 3 spatial axes.
        channel_dim: axis of x's channels.
        interpolation: "linear" or "nearest" (SNAC).
        blend: a module [B, dim, *size] → the same shape, after the interpolation.

    Shapes: x [..., *size, dim] → quantized the same, indices [..., L], loss [].

    Raises: ValueError for scales that do not rise to 1, another number of axes or quantizers, an unknown
        interpolation, and if x has too few axes.

    Source: Tian et al.: Visual Autoregressive Modeling, 2024 (arXiv 2404.02905); in one dimension, SNAC (Siuzdak
        et al. 2024, arXiv 2410.14411).
    """

    @checked
    def __init__(
        self,
        dim: Size,
        quantizers: Sequence[Quantizer],
        *,
        scales: Sequence[float],
        axes: int,
        channel_dim: int = -1,
        interpolation: Interpolation = "linear",
        blend: nn.Module | None = None,
    ) -> None:
        self.scales = check_scales(scales)
        if len(quantizers) != len(self.scales):
            raise ValueError(f"got {len(quantizers)} quantizers for {len(scales)} scales; expected one per scale")
        dims = sorted({check_component(quantizer).dim for quantizer in quantizers})
        if len(dims) != 1:
            raise ValueError(f"quantizers have dims {dims}, expected one dim for all")
        if axes not in (1, 2, 3):
            raise ValueError(f"axes is {axes!r}, expected 1, 2 or 3")
        super().__init__(dim, quantizers, code_dim=dims[0], channel_dim=channel_dim)
        if any(component.composed for component in self.components):
            raise ValueError(
                "quantizers contain one with several codebooks, expected one index per cell from each"
            )
        self.axes = axes
        self.interpolation: Interpolation = interpolation
        self.blend = blend

    @classmethod
    @forwards(others=f"the quantizer of each scale; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        scales: Sequence[float] = (0.25, 0.5, 1.0),
        axes: int = 2,
        shared: bool = True,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build one quantizer for all scales, as in VAR, or one of the same kind for each scale.

        Args:
            quantizer: the name, class or function of the scales' quantizer, as for `create`.
            shared: one quantizer for all scales.
            options: further arguments of the constructor; all others go to the quantizer of each scale.
        """
        own, inner = split_options(cls, options)
        with forwarding(cls.from_options):
            built = repeated(lambda: create(quantizer, dim, **inner), len(scales), shared)
        return cls(dim, built, scales=scales, axes=axes, channel_dim=channel_dim, **own)

    @property
    def same_indices_in_training(self) -> bool:
        """Whether each scale gives the same indices as `encode`, and leaves the same residual."""
        leaves_same = all(component.value_is_code for component in self.components[:-1])
        return leaves_same and super().same_indices_in_training

    @property
    def _index_rule(self) -> dict[str, Any]:
        own = {
            "scales": [str(scale) for scale in self.scales],
            "axes": self.axes,
            "interpolation": self.interpolation,
        }
        return {**super()._index_rule, **own}

    def split(self, indices: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Split indices [..., L] into one map [..., *level] for each scale. Args: size: that of x, [axes]."""
        levels = pyramid_sizes(check_size("size", size), self.scales)
        maps = torch.split(indices, [count_cells(level) for level in levels], -1)
        return [tokens.reshape((*indices.shape[:-1], *level)) for tokens, level in zip(maps, levels, strict=True)]

    def tokens_per_codebook(self, tokens: int) -> list[int]:
        """See `MapQuantizer.tokens_per_codebook`; there is one codebook per scale."""
        levels = pyramid_sizes(full_size(tokens, self.axes, self.scales), self.scales)
        return [count_cells(level) for level in levels]

    @through_forward
    def decode(self, indices: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The quantized vectors of indices [..., L]: [..., *size, dim], the channels on `channel_dim`.

        They are zero where the finest scale has index −1.

        Args: size: the size of x's spatial axes. Default: all equal.

        Raises: as Quantizer.decode; ValueError if the number of tokens does not fit the size.
        """
        indices = MapQuantizer._check_indices(self, indices)  # the components check their own below
        if size is None:
            size = full_size(indices.shape[-1], self.axes, self.scales)
        size = check_size("size", size)
        if len(size) != self.axes or min(size) < 1:
            raise ValueError(f"size is {size}, expected {self.axes} numbers of at least 1")
        expected = sum(count_cells(level) for level in pyramid_sizes(size, self.scales))
        if indices.shape[-1] != expected:
            raise ValueError(f"indices have {indices.shape[-1]} tokens, expected {expected} for size {size}")
        maps = self.split(indices.reshape(-1, indices.shape[-1]), size)
        self._check_component_indices(maps)
        with without_autocast(indices.device):
            pairs = zip(self.components, maps, strict=True)
            values = [
                self._upsample(component.nested_decode(tokens.reshape(-1)), tokens, size)
                for component, tokens in pairs
            ]
            total = functools.reduce(torch.add, values)
            rows = self._project(self.project_out, total.movedim(1, -1).reshape(-1, self.code_dim))
        rows = rows.where((maps[-1].reshape(-1) != NO_CODE)[:, None], 0.0)
        return from_rows(rows, torch.Size((*indices.shape[:-1], *size)), self.channel_dim)

    def encode_rows(self, rows: Rows) -> Tensor:
        """See `Quantizer.encode_rows`; the rows have the shape of their batch."""

        def encode(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            tokens = component.nested_encode(cells)
            return component.nested_decode(tokens), tokens

        return self._quantize_pyramid(self._project_in(rows), encode)[1]

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        maps = self.split(indices, self._size(projected))
        inputs = []

        def replay(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            tokens = maps[position].reshape(-1)
            inputs.append((component, cells.vectors, tokens))
            return component.nested_decode(tokens), tokens

        self._quantize_pyramid(projected, replay)
        return inputs

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        self._initialize_in_order(projected, self._initialize_components, process_group)

    def _initialize_components(self, projected: Rows, initialize: Initialize) -> None:
        def initialize_and_encode(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            initialize(component, cells.vectors[cells.valid])
            tokens = component.nested_encode(cells)
            return component.nested_decode(tokens), tokens

        self._quantize_pyramid(projected, initialize_and_encode)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        losses = []

        def quantize(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            codes, tokens, loss = component.nested_quantize(cells)
            losses.append(loss)
            return codes, tokens

        total, indices = self._quantize_pyramid(rows, quantize)
        return QuantizerOutput(total.movedim(1, -1).reshape(-1, self.code_dim), indices, torch.stack(losses))

    def _quantize_pyramid(self, projected: Rows, quantize_cells: QuantizeCells) -> tuple[Tensor, Tensor]:
        """Go from the coarsest scale to the finest: the value [B, code_dim, *size], and the indices [B, L].

        A cell without an index adds zero.
        """
        size = self._size(projected)
        leading = math.prod(projected.shape[: -self.axes])
        residual = projected.vectors.reshape(leading, *size, self.code_dim).movedim(-1, 1)
        counts = projected.valid.reshape(leading, 1, *size)
        weight = counts.to(residual.dtype)
        maps, values = [], []
        for position, level in enumerate(pyramid_sizes(size, self.scales)):
            means, filled = pool(residual, weight, level)
            valid = filled.reshape(-1)
            vectors = means.movedim(1, -1).reshape(-1, self.code_dim).where(valid[:, None], 0.0)
            cells = Rows(vectors, valid, torch.Size((leading, *level)))
            codes, tokens = quantize_cells(position, self.components[position], cells)
            values.append(self._upsample(codes, tokens.reshape(leading, *level), size))
            residual = (residual - values[-1]).where(counts, 0.0)
            maps.append(tokens.reshape(leading, count_cells(level)))
        return functools.reduce(torch.add, values), torch.cat(maps, -1)

    def extra_repr(self) -> str:
        scales = ", ".join(map(str, self.scales))
        own = f"scales=({scales}), axes={self.axes}, interpolation={self.interpolation!r}"
        return f"{super().extra_repr()}, {own}"

    def _upsample(self, codes: Tensor, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        """The codes [cells, code_dim] of a map of tokens [B, *level] at full size, [B, code_dim, *size]."""
        codes = codes.where((tokens >= 0).reshape(-1)[:, None], 0.0)
        full = upsample(codes.reshape(*tokens.shape, self.code_dim).movedim(-1, 1), size, self.interpolation)
        return full if self.blend is None else call_widened(self.blend, full)

    def _size(self, projected: Rows) -> tuple[int, ...]:
        if len(projected.shape) < self.axes:
            raise ValueError(
                f"x has {len(projected.shape)} axes beside its channels, expected at least {self.axes}"
            )
        size = tuple(projected.shape[-self.axes :])
        if min(size) < 1:
            raise ValueError(f"x has size {size}, expected at least 1 on each axis")
        return size


register("multiscale", MultiScaleQuantizer.from_options)
