"""SNAC's residual quantizer, whose stages have different rates."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.last_loss import LastLossAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.dac_stage import (
    DacStageAdapter,
    Stage,
    project_as_convolutions,
    read_stage,
)
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from quantizers.core.base import Quantizer


class SnacStage(Stage):
    """A stage of SNAC, as models read it.

    Args: stride: how many vectors share one code.
    """

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype, stride: int) -> None:
        super().__init__(quantizer, dtype)
        self.stride = stride


class SnacAdapter(LastLossAdapter):
    """Replaces ResidualVectorQuantize of the package snac (tested with 1.2.1).

    z [B, D, T] → (z_q [B, D, T], codes: a list with [B, T / stride] for each stage). `from_codes(codes)` → z_q.

    A name stands for the quantizer of each stage: `plug_in(snac, "simvq")` builds a MultiScaleQuantizer with one
    SimVQ for each stride. Each projects to its codes and back, as in the original, if codes have other channels
    than z.

    The original returns no loss, and its package has no training. Here the attribute `loss` has the loss of the
    last forward, for a training loop:

        audio_hat, codes = model(audio)
        (reconstruction_loss(audio_hat, audio) + model.quantizer.loss).backward()

    T is a multiple of the largest stride, as in the original, whose model pads its audio to that.

    With `keep_codebook` codes are compared by angle, as in the original, and the projections are copied; the
    losses have DAC's weights.

    Not supported: strides that do not fall to 1, such as (1, 1, 1), and stages that differ in their sizes.

    Source: Siuzdak et al.: SNAC: Multi-Scale Neural Audio Codec, 2024 (arXiv 2410.14411); `snac/vq.py`.
    """

    contract: ClassVar[str] = "snac"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantize",)
    channel_dim: ClassVar[int] = 1
    has_scales: ClassVar[bool] = True

    quantizer: PyramidQuantizer

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        for component in self.quantizer.components:
            project_as_convolutions(component)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return torch.randn(2, spec.dim, 2 * original.quantizers[0].stride)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "from_codes", module.from_codes(out[1])

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        strides = [int(stage.stride) for stage in original.quantizers]
        specs = [read_stage(stage) for stage in original.quantizers]
        falls = all(high > low for high, low in itertools.pairwise(strides))
        if not strides or not falls or strides[-1] != 1 or any(spec != specs[0] for spec in specs):
            sizes = [(spec.dim, spec.codebook_size, spec.options["code_dim"]) for spec in specs]
            raise ValueError(
                f"{type(original).__name__} has stages with strides {strides} and (channels, codes, code "
                f"channels) {sizes}; expected strides that fall to 1, and the same sizes for all stages"
            )
        options = {**specs[0].options, "interpolation": "nearest"}
        scales = tuple(1 / stride for stride in strides)
        return specs[0]._replace(options=options, scales=scales, axes=cls.positions, projects_scales=True)

    @classmethod
    def check_quantizer(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Raises: ValueError for a quantizer of maps with other axes than audio."""
        axes = getattr(quantizer, "axes", None)
        if axes != 1:
            raise ValueError(
                f"quantizer is {type(quantizer).__name__} with axes={axes}, but this model quantizes audio; "
                "expected axes=1"
            )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return torch.stack([DacStageAdapter.trained_codebook(stage) for stage in original.quantizers])

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy codes and projections of the stages.

        Raises: ValueError for stages that do not choose codes as the original's do, and for a quantizer that does
            more than add the stages up.
        """
        if not isinstance(quantizer, MultiScaleQuantizer) or not _only_sums(quantizer):
            raise ValueError(
                f"{type(quantizer).__name__} cannot keep the codebooks of SNAC, whose stages have one each and "
                "get plain residuals; expected a MultiScaleQuantizer with a quantizer for each scale, "
                "interpolation='nearest', and without entry, blends or projections of its own"
            )
        for component, stage in zip(quantizer.components, original.quantizers, strict=True):
            DacStageAdapter.copy_codebook(stage, component)

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See the class. Raises: ValueError or TypeError for z of another shape or dtype."""
        quantized, indices, self.loss = self.quantizer(z)
        return quantized, self.quantizer.split(indices, z.shape[2:])

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """z_q [B, D, T] of the codes [B, T / stride] of all stages. Raises: as `PyramidQuantizer.decode`."""
        decoded: Tensor = self.quantizer.decode(torch.cat([*codes], -1), codes[-1].shape[1:])
        return decoded.to(self.dtype)

    @property
    def quantizers(self) -> list[SnacStage]:
        """The stages, as models read them."""
        return [
            SnacStage(component, self.dtype, round(1 / scale[0]))
            for component, scale in zip(self.quantizer.components, self.quantizer.scales, strict=True)
        ]

    @property
    def n_codebooks(self) -> int:
        """The number of stages."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """The number of channels of a code."""
        return self.quantizer.components[0].code_dim


def _only_sums(quantizer: MultiScaleQuantizer) -> bool:
    """Whether this is the plain recursion over scales, each with a quantizer of its own, and repeated codes."""
    plain = quantizer.entry is None and not quantizer.blends and quantizer.interpolation == "nearest"
    distinct = len(quantizer.quantizers) == len(quantizer.components)
    return plain and distinct and isinstance(quantizer.project_in, nn.Identity)
