"""The base of multi-scale quantizers: residuals of a map, on coarse to fine grids."""

import abc
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from quantizers.composite.bit_flips import FlippedScales, check_bits, flip_bits, flipped_codes
from quantizers.composite.blends import spread_blends
from quantizers.composite.composed import Initialize, check_component
from quantizers.composite.pyramid import (
    GivenScales,
    GivenSizes,
    Interpolation,
    Size,
    as_grid,
    as_vectors,
    check_scales,
    count_cells,
    for_each_map,
    pool,
    upsample,
)
from quantizers.composite.pyramid_options import Axes, PyramidOptions
from quantizers.composite.scale_tokens import ScaleTokens
from quantizers.core.arguments.checks import Probability, check_as, check_numbers
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.codebook_dropout import draw_depths
from quantizers.core.layout import Rows, to_rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import call_widened
from quantizers.kernels.common.dispatch import without_autocast

CodesAndTokens = tuple[Tensor, Tensor]
"""Codes and indices of the cells of one scale."""

QuantizeCells = Callable[[int, RowQuantizer, Rows], CodesAndTokens]
"""Quantizes the cells of one scale, given the scale's position, its quantizer and the cells as rows."""


class Walk(NamedTuple):
    """What a walk over the scales of a batch of B maps leaves."""

    target: Tensor  # [B, code_dim, *size], what the values approximate
    counts: Tensor  # bool [B, 1, *size], the positions that count
    values: list[Tensor]  # of each scale at full size, [B, code_dim, *size]
    indices: Tensor  # [B, L]


class PyramidQuantizer(ScaleTokens):
    """A quantizer that quantizes a map's residual scale by scale, from the coarsest grid to the finest.

    With r_0 = z, or entry(z), and scales k = 0 … S − 1:

        q_k = Q_k(mean of r_k over each cell)
        r_{k+1} = r_k − u_k,  u_k = φ_k(interpolate(q_k))
        value = Σ_k u_k

    The last scale has the size of x. A subclass says how gradients and losses follow from this, in `_quantize`
    and `_subtract`.

    x has `axes` spatial axes, the last of its leading ones: [..., T], [..., H, W] or [..., T, H, W] beside its
    channels. **Indices** are [..., L]: the tokens of all scales, the coarsest first, each in row-major order, as
    an autoregressive model reads them; `split` separates them. A cell gets −1 if all its positions are masked or
    not finite. The tokens of the first scales are themselves indices, of a coarser value.

    **Sizes.** `scales` are relative to x's size, on all axes or on each: [1/16, 1/4, 1] of 16 × 24 positions are
    grids of 1 × 2, 4 × 6 and 16 × 24. So maps of any size and aspect ratio have grids of their own, and
    scales=[(1/4, 1/8, 1/8), (1, 1/2, 1/2), (1, 1, 1)] reach a video's full length before its full size. Forward
    and `encode` also take `sizes`, the list of the sizes of all scales, for this call alone: fewer scales, or the
    tables of a published model. Methods that take indices accept that list in the place of x's size.

    **Fewer scales.** In a forward in training, with probability `dropout`, a sample (or the whole batch) uses only
    its first scales, their number drawn uniformly from 1 to all. The scales left out have index −1, add zero, and
    learn nothing.

    **Flipped bits.** In a forward in training, each bit of a code is flipped with probability `flip_probability`,
    and later scales quantize what is then left: they learn to correct errors (Han et al. 2024, arXiv 2412.04431,
    whose model makes such errors when it samples). The quantizers must have a bit in each channel: BSQ, LFQ, and
    FSQ with two levels. Gradients are those of the code before the flip.

    Args:
        dim: channels of x; where it differs from the quantizers' dim, x is projected.
        quantizers: one for each scale, all of one `dim`. The same object several times is a shared codebook.
        scales: the size of each scale relative to x's own, rising to 1: a number, or one for each axis. A scale
            that occurs several times in a row is quantized as often, each time what the time before left.
        axes: 1, 2 or 3 spatial axes.
        channel_dim: axis of x's channels.
        interpolation: "cubic", "linear" or "nearest".
        blends: φ: one module for all scales, one for each scale, or a number between, see `spread_blends`; without
            any, φ is the identity. Modules [B, code_dim, *size] → the same shape, such as `BlendConvolution`.
        entry: a module on vectors [N, code_dim] before the first scale, such as nn.LayerNorm(code_dim).
        dropout: a probability in [0, 1].
        dropout_by: "sample", the first axis of x, or "batch".
        flip_probability: a probability in [0, 1].

    Raises: ValueError for scales that do not rise to 1, another number of axes, quantizers or blends, an unknown
        interpolation, flips of codes that are not bits, and if x has too few axes.
    """

    @checked
    def __init__(
        self,
        dim: int,
        quantizers: Sequence[Quantizer],
        *,
        scales: Annotated[GivenScales, check_numbers],
        axes: Axes,
        interpolation: Interpolation,
        **options: Unpack[PyramidOptions],
    ) -> None:
        self.scales = check_scales(scales, axes)
        scale_count, blend_count = len(self.scales), len(options["blends"])
        if len(quantizers) != scale_count:
            raise ValueError(f"got {len(quantizers)} quantizers for {scale_count} scales; expected one per scale")
        if blend_count > scale_count:
            raise ValueError(f"got {blend_count} blends for {scale_count} scales; expected at most one per scale")
        dims = sorted({check_component(quantizer).dim for quantizer in quantizers})
        if len(dims) != 1:
            raise ValueError(f"quantizers have dims {dims}, expected one dim for all")
        super().__init__(dim, quantizers, code_dim=dims[0], channel_dim=options["channel_dim"])
        if any(component.composed for component in self.components):
            raise ValueError(
                "quantizers contain one with several codebooks, expected one index per cell from each"
            )
        if options["flip_probability"]:
            check_bits(self.components)
        self.axes = axes
        self.interpolation: Interpolation = interpolation
        self.blends = nn.ModuleList(options["blends"])
        self.entry = options["entry"]
        self.dropout = options["dropout"]
        self.dropout_by = options["dropout_by"]
        self.flip_probability = options["flip_probability"]

    @property
    def draws_in_training(self) -> bool:
        """Whether dropout, flips or a component draw random numbers."""
        return self.dropout > 0 or self.flip_probability > 0 or super().draws_in_training

    @property
    def same_indices_in_training(self) -> bool:
        """Whether each scale gives the same indices as `encode`, and leaves the same residual."""
        return self.dropout == self.flip_probability == 0 and super().same_indices_in_training

    @property
    def _index_rule(self) -> dict[str, Any]:
        own = {
            "scales": [shown_scale(scale) for scale in self.scales],
            "axes": self.axes,
            "interpolation": self.interpolation,
            "blends": [type(blend).__name__ for blend in self.blends],
            "entry": None if self.entry is None else type(self.entry).__name__,
        }
        return {**super()._index_rule, **own}

    # Calls

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, sizes: GivenSizes | None = None
    ) -> QuantizerOutput:
        """Quantize x.

        Args:
            x, mask: see Quantizer.
            sizes: the sizes of all scales, the coarsest first, ending with x's: a number for all axes, or one for
                each. By default those of `scales`.

        Raises: as Quantizer; ValueError for sizes that do not ascend to x's.
        """
        if isinstance(x, MethodCall):
            return x.run(self)
        _check_one_size(x)
        quantized, indices, loss = self._forward(x, mask, self._quantize, sizes=sizes)
        return QuantizerOutput(quantized, indices, loss.sum())

    @through_forward
    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None, *, sizes: GivenSizes | None = None) -> Tensor:
        """The indices that evaluation gives for x, in either mode: int64 [..., L].

        Args: sizes: see `forward`.
        """
        _check_one_size(x)
        return self._encode_input(x, mask, sizes=sizes)

    @through_forward
    @torch.no_grad()
    def encode_with_flips(
        self,
        x: Tensor,
        probability: float,
        mask: Tensor | None = None,
        *,
        sizes: GivenSizes | None = None,
    ) -> FlippedScales:
        """Encode x as a model makes errors: flip bits at random, and let the later scales correct them.

        Each sample and scale draws its own probability from 0 to `probability`. A model trained on these pairs
        reads `scale_inputs(indices)` and predicts `targets`.

        Args:
            x, mask, sizes: as for `encode`.
            probability: in [0, 1], the largest share of flipped bits.

        Raises: as `encode`; ValueError for quantizers whose codes are not bits.

        Source: bitwise self-correction, §3.4 of Infinity (Han et al. 2024, arXiv 2412.04431).
        """
        probability = check_as(Probability, "probability", probability)
        check_bits(self.components)
        _check_one_size(x)
        rows = to_rows(x, mask, self.dim, self.channel_dim, self._listed(sizes))
        targets = []

        def flip(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            tokens = component.nested_encode(cells)
            targets.append(tokens.reshape(cells.shape[0], -1))
            shares = probability * torch.rand(cells.shape[0], device=tokens.device)
            spread = shares[:, None].expand_as(targets[-1]).reshape(-1)
            flipped = flip_bits(tokens, component.code_dim, spread)
            return component.nested_decode(flipped), flipped

        with without_autocast(x.device):
            indices = self._walk(self._project_in(rows), flip).indices
        pair = (torch.cat(targets, -1), indices)
        return FlippedScales(*(self._reshape_indices(each, rows.shape) for each in pair))

    def encode_rows(self, rows: Rows) -> Tensor:
        """See `Quantizer.encode_rows`; the rows have the shape of their batch."""

        return self._walk(self._project_in(rows), _encode_cells).indices

    # Learning

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        maps = self._split(indices, self._sizes_of(projected))
        inputs = []

        def replay(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            tokens = maps[position].reshape(-1)
            inputs.append((component, cells.vectors, tokens))
            return component.nested_decode(tokens), tokens

        self._walk(projected, replay)
        return inputs

    def _initialize_batch(self, projected: Rows, process_group: ProcessGroup) -> None:
        self._initialize_in_order(projected, self._initialize_components, process_group)

    def _initialize_components(self, projected: Rows, initialize: Initialize) -> None:
        def initialize_and_encode(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            initialize(component, cells.vectors[cells.valid])
            return _encode_cells(position, component, cells)

        self._walk(projected, initialize_and_encode)

    # Arithmetic

    @abc.abstractmethod
    def _subtract(self, residual: Tensor, value: Tensor) -> Tensor:
        """The residual after a scale, [B, code_dim, *size]."""

    def _unquantized(self, z: Tensor) -> Tensor:
        return z if self.entry is None else call_widened(self.entry, z)

    def _walk(self, projected: Rows, quantize_cells: QuantizeCells, depths: Tensor | None = None) -> Walk:
        """Go from the coarsest scale to the finest. A cell without an index adds zero.

        Args: depths: how many scales each map uses, [B]; None for all.
        """
        sizes = self._sizes_of(projected)
        size, leading = sizes[-1], math.prod(projected.shape[: -self.axes])
        vectors = self._unquantized(projected.vectors).where(projected.valid[:, None], 0.0)
        target = residual = as_grid(vectors, leading, size)
        counts = projected.valid.reshape(leading, 1, *size)
        weight = counts.to(residual.dtype)
        maps, values = [], []
        for position, level in enumerate(sizes):
            means, filled = pool(residual, weight, level)
            if depths is not None:
                filled = filled & for_each_map(depths > position, self.axes)
            valid = filled.reshape(-1)
            rows = as_vectors(means).where(valid[:, None], 0.0)
            cells = Rows(rows, valid, means[:, 0].shape)
            codes, tokens = quantize_cells(position, self.components[position], cells)
            values.append(self._value(position, len(sizes), codes, tokens.reshape(leading, *level), size))
            residual = self._subtract(residual, values[-1]).where(counts, 0.0)
            maps.append(tokens.reshape(leading, count_cells(level)))
        return Walk(target, counts, values, torch.cat(maps, -1))

    def _flipped(self, component: RowQuantizer, codes: Tensor, tokens: Tensor) -> CodesAndTokens:
        """Codes and indices with flipped bits, in training with a `flip_probability`."""
        if not self.training or not self.flip_probability:
            return codes, tokens
        flipped = flip_bits(tokens, component.code_dim, self.flip_probability)
        return flipped_codes(component, codes, flipped), flipped

    def _value(self, position: int, scales: int, codes: Tensor, tokens: Tensor, size: Size) -> Tensor:
        """φ of the codes [cells, code_dim] of a map of tokens [B, *level] at full size, [B, code_dim, *size].

        It is zero for a map without any token.
        """
        codes = codes.where((tokens >= 0).reshape(-1, 1), 0.0)
        full = upsample(as_grid(codes, *_shape_of(tokens)), size, self.interpolation)
        if not self.blends:
            return full
        blended = call_widened(spread_blends(position, scales, list(self.blends)), full)
        any_token = (tokens >= 0).flatten(1).any(1)  # a convolution's bias must not add to a scale left out
        return blended.where(for_each_map(any_token, self.axes), 0.0)

    def _value_of(self, position: int, scales: int, tokens: Tensor, size: Size) -> Tensor:
        codes = self.components[position].nested_decode(tokens.reshape(-1))
        return self._value(position, scales, codes, tokens, size)

    def _draw_depths(self, projected: Rows) -> Tensor | None:
        """How many scales each map uses, [B] int64; None for all."""
        if not self.training or self.dropout == 0:
            return None
        by_sample = self.dropout_by == "sample" and len(projected.shape) > self.axes
        drawn = draw_depths(projected, len(self._sizes_of(projected)), self.dropout, by_sample)
        cells = count_cells(self._size(projected))
        return drawn[::cells]

    def extra_repr(self) -> str:
        scales = ", ".join(shown_scale(scale) for scale in self.scales)
        shown = [super().extra_repr(), f"scales=({scales})", f"axes={self.axes}"]
        shown.append(f"interpolation={self.interpolation!r}")
        if self.dropout:
            shown.append(f"dropout={self.dropout:.4g}, dropout_by={self.dropout_by!r}")
        if self.flip_probability:
            shown.append(f"flip_probability={self.flip_probability:.4g}")
        return ", ".join(shown)


def _encode_cells(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
    """See `QuantizeCells`: the tokens that evaluation gives, and their codes."""
    tokens = component.nested_encode(cells)
    return component.nested_decode(tokens), tokens


def _check_one_size(x: object) -> None:
    """Raises: TypeError for a list of maps, which may have several sizes."""
    if isinstance(x, (list, tuple)) and not isinstance(x, MethodCall):
        shapes = sorted({tuple(each.shape) for each in x if isinstance(each, Tensor)})
        raise TypeError(
            f"x is a list of maps of shapes {shapes}, expected a tensor of maps of one size: call once for each "
            "size, or pad the maps to one size and pass a mask"
        )


def _shape_of(tokens: Tensor) -> tuple[int, Size]:
    return tokens.shape[0], tuple(tokens.shape[1:])


def shown_scale(scale: Sequence[Fraction]) -> str:
    """A scale relative to x's size as text: one number where it is the same on all axes."""
    return str(scale[0]) if len(set(scale)) == 1 else f"({', '.join(map(str, scale))})"
