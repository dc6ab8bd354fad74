"""Multi-scale quantization with the loss and the gradient of each scale's quantizer."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Self, Unpack

from quantizers.composite.pyramid import GivenScales, Interpolation, as_vectors
from quantizers.composite.pyramid_options import Axes, PyramidOptions
from quantizers.composite.pyramid_quantizer import CodesAndTokens, PyramidQuantizer
from quantizers.composite.repetition import STAGE_OPTIONS
from quantizers.composite.scale_quantizers import scale_quantizers
from quantizers.core.arguments.checks import Size, check_numbers, elements
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import Builder, register
from quantizers.core.row_quantizer import RowQuantizer


class MultiScaleQuantizer(PyramidQuantizer):
    """Multi-scale quantization, in which each scale is a stage with a loss and a gradient of its own.

    The equations are those of PyramidQuantizer, and

        loss = Σ_k loss_k

    Gradients follow the chain rule through the equations, as in ResidualQuantizer. In one dimension this is SNAC;
    in two or three, with quantizer="bsq" and a LayerNorm as `entry`, Infinity, whose published code stops the
    gradient between the scales instead. `VARQuantizer` is the same with the loss of VAR, which compares x with the
    sum of the scales.

    Example:
        >>> import torch
        >>> from quantizers import FSQ, MultiScaleQuantizer
        >>> quantizer = MultiScaleQuantizer(2, [FSQ(2, [5, 5])] * 2, scales=[0.5, 1.0], axes=2)
        >>> quantized, indices, loss = quantizer(torch.zeros(1, 4, 4, 2))
        >>> quantized.shape, indices.shape
        (torch.Size([1, 4, 4, 2]), torch.Size([1, 20]))
        >>> [tokens.shape for tokens in quantizer.split(indices, (4, 4))]
        [torch.Size([1, 2, 2]), torch.Size([1, 4, 4])]

    The sizes of the scales in one call, and a value of the first scale alone:

        >>> sizes = [(1, 1), (4, 4)]
        >>> indices = quantizer.encode(torch.zeros(1, 4, 4, 2), sizes=sizes)
        >>> indices.shape, quantizer.decode(indices[:, :1], sizes).shape
        (torch.Size([1, 17]), torch.Size([1, 4, 4, 2]))

    Args: see PyramidQuantizer.

    Shapes: x [..., *size, dim] → quantized the same, indices [..., L], loss [].

    Raises: as PyramidQuantizer.

    Source: SNAC (Siuzdak et al. 2024, arXiv 2410.14411); Infinity (Han et al. 2024, arXiv 2412.04431).
    """

    @checked
    def __init__(
        self,
        dim: Size,
        quantizers: Sequence[Quantizer],
        *,
        scales: Annotated[GivenScales, check_numbers],
        axes: Axes,
        interpolation: Interpolation = "linear",
        **options: Unpack[PyramidOptions],
    ) -> None:
        super().__init__(dim, quantizers, scales=scales, axes=axes, interpolation=interpolation, **options)

    @classmethod
    @forwards(others=f"the quantizer of each scale; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        scales: Annotated[GivenScales, check_numbers] = (0.25, 0.5, 1.0),
        axes: Axes = 2,
        shared: bool = True,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build one quantizer for all scales, or one of the same kind for each scale.

        Args:
            quantizer: the name, class or function of the scales' quantizer, as for `create`. Where it has fewer
                channels than x, x is projected once, before the first scale.
            shared: one quantizer for all scales.
            options: further arguments of the constructor; all others go to the quantizer of each scale.
        """
        own, inner = split_options(cls, options)
        with forwarding(cls.from_options):
            count = len(elements(scales) or ())
            built = scale_quantizers(quantizer, dim, inner, count=count, shared=shared)
        return cls(dim, built, scales=scales, axes=axes, channel_dim=channel_dim, **own)

    @property
    def same_indices_in_training(self) -> bool:
        """Whether each scale gives the same indices as `encode`, and leaves the same residual."""
        leaves_same = all(component.value_is_code for component in self.components[:-1])
        return leaves_same and super().same_indices_in_training

    def _subtract(self, residual: Tensor, value: Tensor) -> Tensor:
        return residual - value

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        losses = []

        def quantize(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            codes, tokens, loss = component.nested_quantize(cells)
            losses.append(loss)
            return self._flipped(component, codes, tokens)

        walk = self._walk(rows, quantize, self._draw_depths(rows))
        value = functools.reduce(torch.add, walk.values)
        return QuantizerOutput(as_vectors(value), walk.indices, torch.stack(losses))


register("multiscale", MultiScaleQuantizer.from_options)
