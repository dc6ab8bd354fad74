"""Multi-scale quantization: residuals over a pyramid of resolutions."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from quantizers.composite.composed import ComposedQuantizer, Fit, check_component
from quantizers.composite.pyramid import (
    Interpolation,
    check_scales,
    count_cells,
    full_size,
    pool,
    pyramid_sizes,
    spread,
)
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.core.arguments.checks import Size, check_size
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows, from_rows
from quantizers.core.map_quantizer import MapQuantizer
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.requests import through_forward
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import call_widened
from quantizers.kernels.dispatch import without_autocast

Answer = tuple[Tensor, Tensor]  # codes and indices of a scale's cells


class MultiScaleQuantizer(MapQuantizer, ComposedQuantizer):
    """Coarse to fine: r_0 = z; at each scale k the mean of r over coarse cells is quantized, its codes u_k are
    interpolated to full size, and r_{k+1} = r_k − u_k; value Σ u_k.

    Tian et al.: Visual Autoregressive Modeling, 2024 (arXiv 2404.02905), algorithms 1 and 2; in one dimension,
    SNAC (Siuzdak et al. 2024, arXiv 2410.14411). VAR passes the interpolated codes through a convolution: `blend`.

    x has `axes` spatial axes, the last of its leading ones: [..., T], [..., H, W] or [..., T, H, W] beside its
    channels. **Indices** are [..., L]: the tokens of all scales, the coarsest first, each in row-major order, as
    an autoregressive model reads them; `split` takes them apart. A cell whose positions are all masked or not
    finite has −1.

    Gradients and loss follow ResidualQuantizer: the chain rule, and the sum of the scales' losses.

    Args:
        dim: channels of x; where it differs from the quantizers', x is projected.
        quantizers: one for each scale, all of one `dim`. The same object several times is a shared codebook (VAR).
        scales: of each level, relative to x's own size, rising to 1; VAR's for 16 × 16 are n/16 for n in
            1, 2, 3, 4, 5, 6, 8, 10, 13, 16.
        axes: 1, 2 or 3 spatial axes.
        channel_dim: axis of x's channels.
        interpolation: "linear" or "nearest" (SNAC).
        blend: a module [B, dim, *size] → the same, behind the interpolation.

    Shapes: x [..., *size, dim] → quantized the same, indices [..., L], loss [].

    Raises: ValueError for scales that do not rise to 1, another number of axes or quantizers, an unknown
    interpolation, and where x has too few axes.
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
            raise ValueError(f"there are {len(quantizers)} quantizers and {len(scales)} scales, expected as many")
        dims = sorted({check_component(quantizer).dim for quantizer in quantizers})
        if len(dims) != 1:
            raise ValueError(f"quantizers have dims {dims}, expected one dim for all")
        if axes not in (1, 2, 3):
            raise ValueError(f"axes is {axes!r}, expected 1, 2 or 3")
        super().__init__(dim, quantizers, code_dim=dims[0], channel_dim=channel_dim)
        if any(part.composed for part in self.components):
            raise ValueError("quantizers hold one with several codebooks, expected one index a cell from each")
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
    def _index_rule(self) -> dict[str, Any]:
        own = {
            "scales": [str(scale) for scale in self.scales],
            "axes": self.axes,
            "interpolation": self.interpolation,
        }
        return {**super()._index_rule, **own}

    def split(self, indices: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Indices [..., L] as one map [..., *level] for each scale. size: of x, [axes]."""
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

        Zero where the finest scale has −1.

        Args:
            size: of x's spatial axes; default: all equal.

        Raises: as Quantizer.decode; ValueError where the number of tokens is not that of the size.
        """
        indices = MapQuantizer._check_indices(self, indices)  # the parts' own once it is known which are theirs
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
            spreads = [
                self._spread(part.nested_decode(tokens.reshape(-1)), tokens, size) for part, tokens in pairs
            ]
            total = functools.reduce(torch.add, spreads)
            rows = self._project(self.project_out, total.movedim(1, -1).reshape(-1, self.code_dim))
        rows = rows.where((maps[-1].reshape(-1) != NO_CODE)[:, None], 0.0)
        return from_rows(rows, torch.Size((*indices.shape[:-1], *size)), self.channel_dim)

    def encode_rows(self, rows: Rows) -> Tensor:
        """`encode` on rows, with the shape of their batch."""

        def nearest(place: int, part: RowQuantizer, cells: Rows) -> Answer:
            tokens = part.nested_encode(cells)
            return part.nested_decode(tokens), tokens

        return self._descend(self._project_in(rows), nearest)[1]

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        maps = self.split(indices, self._size(projected))
        seen = []

        def given(place: int, part: RowQuantizer, cells: Rows) -> Answer:
            tokens = maps[place].reshape(-1)
            seen.append((part, cells.vectors, tokens))
            return part.nested_decode(tokens), tokens

        self._descend(projected, given)
        return seen

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        self._initialize_in_order(projected, self._fit_components, process_group)

    def _fit_components(self, projected: Rows, fit: Fit) -> None:
        def fitted(place: int, part: RowQuantizer, cells: Rows) -> Answer:
            fit(part, cells.vectors[cells.valid])
            tokens = part.nested_encode(cells)
            return part.nested_decode(tokens), tokens

        self._descend(projected, fitted)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        losses = []

        def quantized(place: int, part: RowQuantizer, cells: Rows) -> Answer:
            codes, tokens, loss = part.nested_quantize(cells)
            losses.append(loss)
            return codes, tokens

        total, indices = self._descend(rows, quantized)
        return QuantizerOutput(total.movedim(1, -1).reshape(-1, self.code_dim), indices, torch.stack(losses))

    def _descend(self, projected: Rows, ask: Callable[[int, RowQuantizer, Rows], Answer]) -> tuple[Tensor, Tensor]:
        """From the coarsest scale to the finest: the value [B, code_dim, *size], and the indices [B, L].

        Args: ask: gives the codes and indices of a scale's cells, as rows; a cell without an index counts as zero.
        """
        size = self._size(projected)
        leading = math.prod(projected.shape[: -self.axes])
        residual = projected.vectors.reshape(leading, *size, self.code_dim).movedim(-1, 1)
        counts = projected.valid.reshape(leading, 1, *size)
        weight = counts.to(residual.dtype)
        maps, parts = [], []
        for place, level in enumerate(pyramid_sizes(size, self.scales)):
            means, filled = pool(residual, weight, level)
            valid = filled.reshape(-1)
            vectors = means.movedim(1, -1).reshape(-1, self.code_dim).where(valid[:, None], 0.0)
            cells = Rows(vectors, valid, valid, torch.Size((leading, *level)))
            codes, tokens = ask(place, self.components[place], cells)
            parts.append(self._spread(codes, tokens.reshape(leading, *level), size))
            residual = (residual - parts[-1]).where(counts, 0.0)
            maps.append(tokens.reshape(leading, count_cells(level)))
        return functools.reduce(torch.add, parts), torch.cat(maps, -1)

    def _spread(self, codes: Tensor, tokens: Tensor, size: tuple[int, ...]) -> Tensor:
        """Codes [cells, code_dim] of a map of tokens [B, *level] at full size, [B, code_dim, *size]."""
        codes = codes.where((tokens >= 0).reshape(-1)[:, None], 0.0)
        full = spread(codes.reshape(*tokens.shape, self.code_dim).movedim(-1, 1), size, self.interpolation)
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
