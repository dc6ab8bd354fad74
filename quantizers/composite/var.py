"""Multi-scale quantization with the loss and the gradient of the sum of the scales, as VAR trains it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Self, Unpack

from quantizers.composite.blends import BlendConvolution
from quantizers.composite.pyramid import GivenScales, Interpolation, as_vectors, for_each_map
from quantizers.composite.pyramid_options import Axes, PyramidOptions
from quantizers.composite.pyramid_quantizer import CodesAndTokens, PyramidQuantizer, Walk
from quantizers.composite.repetition import STAGE_OPTIONS
from quantizers.composite.scale_quantizers import scale_quantizers
from quantizers.core.arguments.checks import Count, Share, Size, Weight, check_numbers, elements
from quantizers.core.arguments.forwarding import forwarding, forwards, split_options
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.gradients import Gradient, resolve_gradient
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import Builder, register
from quantizers.core.registry import options as options_of
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.scalar.grid import gradient_in_repr

OWN_LOSSES = ("commitment_weight", "codebook_weight")


class VARQuantizer(PyramidQuantizer):
    """Multi-scale VQ as VAR trains it: x is compared with the sum of the scales, after each scale.

    The equations are those of PyramidQuantizer. With f = z, or entry(z), and f̂_k = Σ_{i ≤ k} u_i,

        value = f̂_{S−1}
        loss = 1/S Σ_k [commitment_weight · mean (sg[f̂_k] − f)² + codebook_weight · mean (f̂_k − sg[f])² + loss_k]

    The gradient of f is that of the value (`gradient`); no scale has one of its own. The codes and φ learn by the
    second term alone, and moving averages from the means that chose them. loss_k is what
    the quantizer of scale k adds, such as the entropies of BSQ. `from_options` builds quantizers without
    commitment and codebook loss, which the sum has instead; give quantizers that you build yourself
    commitment_weight=0 and codebook_weight=0, and no projection of their own.

    Example:
        >>> import torch, quantizers
        >>> sizes = [n / 16 for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)]
        >>> quantizer = quantizers.create("var", 32, codebook_size=4096, scales=sizes, channel_dim=1)
        >>> quantized, indices, loss = quantizer(torch.randn(2, 32, 16, 16))
        >>> quantized.shape, indices.shape
        (torch.Size([2, 32, 16, 16]), torch.Size([2, 680]))

    A transformer over scales reads `scale_inputs` in training, and `start_scales` when it samples:

        >>> quantizer.scale_inputs(indices, (16, 16)).shape  # without the one token of the first scale
        torch.Size([2, 679, 32])

    Args:
        dim, quantizers, scales, axes, channel_dim, blends, entry, dropout, dropout_by, flip_probability: see
            PyramidQuantizer. φ is BlendConvolution in VAR, four of them for ten scales.
        interpolation: "cubic" in VAR.
        commitment_weight, codebook_weight: of the loss; VAR's β is the first.
        gradient: how the gradient reaches f, a name or a function as in `quantizers.gradients`.

    Shapes: x [..., *size, dim] → quantized the same, indices [..., L], loss [].

    Raises: as PyramidQuantizer; ValueError for a negative weight or an unknown gradient.

    Source: Tian et al.: Visual Autoregressive Modeling, 2024 (arXiv 2404.02905), algorithms 1 and 2; the loss is
        that of the published code.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        quantizers: Sequence[Quantizer],
        *,
        scales: Annotated[GivenScales, check_numbers],
        axes: Axes,
        interpolation: Interpolation = "cubic",
        commitment_weight: Weight = 0.25,
        codebook_weight: Weight = 1.0,
        gradient: str | Gradient = "straight_through",
        **options: Unpack[PyramidOptions],
    ) -> None:
        super().__init__(dim, quantizers, scales=scales, axes=axes, interpolation=interpolation, **options)
        for component in self.components:
            if component.code_dim != component.dim:
                raise ValueError(
                    f"a component projects from {component.dim} to {component.code_dim} channels, which would "
                    f"learn nothing: build it with dim={component.code_dim}, so that x is projected once"
                )
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.gradient = resolve_gradient(gradient)

    @classmethod
    @forwards(without=("blends",), others=f"the quantizer of each scale; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        scales: Annotated[GivenScales, check_numbers] = (0.25, 0.5, 1.0),
        axes: Axes = 2,
        shared: bool = True,
        num_blends: Count = 4,
        blend_ratio: Share = 0.5,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build one quantizer for all scales, as in VAR, or one of the same kind for each scale, and φ.

        Args:
            quantizer: the name, class or function of the scales' quantizer, as for `create`. It gets
                commitment_weight=0 and codebook_weight=0 where it has these options. Where it has fewer
                channels than x, x is projected once, before the first scale.
            shared: one quantizer for all scales.
            num_blends: how many BlendConvolutions there are for the scales, at most one for each; 0 for none.
            blend_ratio: r in φ(x) = (1 − r) · x + r · convolution(x).
            options: further arguments of the constructor; all others go to the quantizer of each scale.
        """
        own, inner = split_options(cls, options)
        if "blends" in own:
            inner["blends"] = own.pop("blends")  # an option that nothing takes
        taken = options_of(quantizer)
        inner = {**{name: 0.0 for name in OWN_LOSSES if name in taken}, **inner}
        count = len(elements(scales) or ())
        with forwarding(cls.from_options):
            built = scale_quantizers(quantizer, dim, inner, count=count, shared=shared)
        blends = [BlendConvolution(built[0].dim, axes, blend_ratio) for _ in range(min(num_blends, count))]
        return cls(dim, built, scales=scales, axes=axes, channel_dim=channel_dim, blends=blends, **own)

    @property
    def value_is_code(self) -> bool:
        """True: the value in training is made of the codes of the indices, whatever the quantizers do."""
        return True

    def _subtract(self, residual: Tensor, value: Tensor) -> Tensor:
        return residual - value.detach()

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        losses = []

        def quantize(position: int, component: RowQuantizer, cells: Rows) -> CodesAndTokens:
            _, tokens, loss = component.nested_quantize(cells)
            losses.append(loss)
            codes = component.nested_decode(tokens)  # with a gradient for the codes
            return self._flipped(component, codes, tokens)

        depths = self._draw_depths(rows)
        walk = self._walk(rows, quantize, depths)
        sums = list(accumulate(walk.values))
        errors = [self._error(walk, position, value, depths) for position, value in enumerate(sums)]
        loss = (torch.stack(errors) + torch.stack(losses)) / len(sums)
        quantized = self.gradient(as_vectors(walk.target), as_vectors(sums[-1].detach()))
        return QuantizerOutput(quantized, walk.indices, loss)

    def _error(self, walk: Walk, position: int, value: Tensor, depths: Tensor | None) -> Tensor:
        """The weighted mean squared errors of the sum of the scales up to one, over the maps that use it."""
        counts = walk.counts
        if depths is not None:
            counts = counts & for_each_map(depths > position, self.axes)
        positions = (counts.sum().clamp(min=1) * self.code_dim).to(value.dtype)
        target = walk.target
        pairs = (
            (self.commitment_weight, value.detach(), target),
            (self.codebook_weight, value, target.detach()),
        )
        total = value.new_zeros(())
        for weight, approximation, approximated in pairs:
            error = approximation - approximated
            # Divide first: the mean may fit float32 where the sum does not, and 0 · ∞ would be NaN.
            total = total + (weight / positions * error * error).where(counts, 0.0).sum()
        return total

    def extra_repr(self) -> str:
        weights = f"commitment_weight={self.commitment_weight:.4g}, codebook_weight={self.codebook_weight:.4g}"
        return f"{super().extra_repr()}{gradient_in_repr(self.gradient)}, {weights}"


register("var", VARQuantizer.from_options)
