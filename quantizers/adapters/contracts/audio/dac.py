"""DAC's ResidualVectorQuantize of Descript's package, and DacResidualVectorQuantizer of transformers."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.copying import as_residual, stages_of
from quantizers.adapters.bases.signatures import takes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.dac_stage import (
    DacStageAdapter,
    Stage,
    losses_of_batch,
    losses_of_samples,
    project_as_convolutions,
)
from quantizers.composite.latents import encode_latents, latent_codes, latents_of
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput

Encoded = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class DacAdapter(Adapter):
    """Replaces ResidualVectorQuantize of the package descript-audio-codec (1.0.0; tested with a stand-in).

    z [B, D, T] → (z_q [B, D, T], codes [B, N, T], latents [B, N·d, T], commitment [], codebook loss []). Latents
    are the vectors that each stage looks up a code for, see `quantizers.composite.latents`.

    The codebook loss, whose usual weight is 1, is the whole loss of the new quantizer; the commitment is zero.

    In training a sample uses only its first stages with the probability `quantizer_dropout` of the original,
    which a quantizer that is built from a name takes over. **If a stage was left out, its code is −1**, which
    `from_codes` decodes to zero, so that it returns z_q again; the original returns the code that the stage would
    have chosen. A loss on codes has to leave out −1.

    `model.save(path)` of Descript's package writes a package that imports this library where it is loaded. **With
    `package=False` it writes weights alone.** `DAC.load` then makes a model with its own quantizer, untrained, and
    reports nothing: it loads the weights that it knows and ignores the others. Plug in first, then load:

        model = plug_in(dac.DAC(**saved["metadata"]["kwargs"]), "vq")  # saved = torch.load(path)
        model.load_state_dict(saved["state_dict"])

    Not supported: stages that differ in their sizes.

    Source: Kumar et al.: High-Fidelity Audio Compression with Improved RVQGAN, 2023 (arXiv 2306.06546);
    `dac/nn/quantize.py`.
    """

    contract: ClassVar[str] = "dac"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantize",)
    channel_dim: ClassVar[int] = 1
    has_stages: ClassVar[bool] = True
    returns_first_value: ClassVar[bool] = False
    """Whether these classes return a sixth result, as DualCodec's."""

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        for stage in quantizer.stages:
            project_as_convolutions(stage)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if takes(original, "forward", "possibly_no_quantizer") != cls.returns_first_value:
            raise AttributeError(f"{type(original).__name__} is not called as the quantizer of {cls.contract}")
        specs = [DacStageAdapter.read_spec(stage) for stage in original.quantizers]
        dropout = {"dropout": float(original.quantizer_dropout), "dropout_by": "sample"}
        if not specs or any(spec != specs[0] for spec in specs):
            sizes = [(spec.dim, spec.codebook_size, spec.options["code_dim"]) for spec in specs]
            raise ValueError(
                f"{type(original).__name__} has stages of (channels, codes, code channels) {sizes}; expected at "
                "least one stage, and the same sizes for all stages"
            )
        return specs[0]._replace(num_quantizers=len(specs), options={**specs[0].options, **dropout})

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "forward with n_quantizers", module(z, 1)
        yield "from_codes", module.from_codes(out[1])
        yield "from_latents", module.from_latents(out[2])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return torch.stack([DacStageAdapter.trained_codebook(stage) for stage in original.quantizers])

    @classmethod
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy codes and projections of the stages.

        Raises: ValueError for stages that do not choose codes as the original's do, and for a quantizer that does
            more than add the stages up.
        """
        refusal = (
            f"{type(quantizer).__name__} cannot keep a codebook of DAC, whose stages have one each and get "
            "plain residuals; expected a ResidualQuantizer of distinct stages, without entry, scales or "
            "projections of its own"
        )
        if not _only_sums(as_residual(quantizer, refusal)):
            raise ValueError(refusal)
        stages = stages_of(quantizer, len(original.quantizers))
        for stage, other in zip(stages, original.quantizers, strict=True):
            DacStageAdapter.copy_codebook(other, stage)

    def forward(self, z: Tensor, n_quantizers: int | None = None) -> Encoded:
        """See the class.

        Args:
            n_quantizers: how many codebooks to use in evaluation, from the first. In training dropout decides.

        Raises: ValueError or TypeError for z of another shape or dtype; ValueError for a number of codebooks that
            no first stages have, and for a quantizer whose codebooks are not stages.
        """
        return self._encoded(self._quantized(z, None if self.training else n_quantizers), z)

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode codes [B, n, T] of the first n codebooks.

        Returns: (z_q [B, D, T], the codes' vectors in code space [B, n·d, T], codes).

        Raises: as `Quantizer.decode`.
        """
        indices = codes.movedim(1, -1)
        return self._decode_indices(indices), latent_codes(self.quantizer, indices).to(self.dtype), codes

    def from_latents(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Quantize latents [B, n·d, T] of the first n stages.

        Returns: (z_q [B, D, T], the codes' vectors in code space [B, n·d, T], indices [B, n, T]).

        Raises: ValueError for a number of channels that no first stages have.
        """
        return self.from_codes(encode_latents(self.quantizer, latents).movedim(-1, 1))

    @property
    def quantizers(self) -> list[Stage]:
        """The stages, as models read them. Raises: ValueError for a quantizer that is not residual."""
        return [Stage(stage, self.dtype) for stage in self._residual().stages]

    @property
    def n_codebooks(self) -> int:
        """N."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> list[int]:
        """The number of channels of a code, for each stage."""
        return [stage.codebook_dim for stage in self.quantizers]

    @property
    def quantizer_dropout(self) -> float:
        """The probability that a sample in training uses only its first stages. Can be assigned."""
        return self._residual().dropout

    @quantizer_dropout.setter
    def quantizer_dropout(self, dropout: float) -> None:
        self._residual().dropout = dropout

    def _encoded(self, output: QuantizerOutput, z: Tensor) -> Encoded:
        """What a forward of the quantizer gave, as the model expects it."""
        quantized, indices, loss = output
        latents = latents_of(self.quantizer, z, indices)
        return quantized, indices.movedim(-1, 1), latents, *self._losses(loss, z)

    def _quantized(self, z: Tensor, count: int | None) -> QuantizerOutput:
        if count is None or count == self.n_codebooks:
            output: QuantizerOutput = self.quantizer(z)
        else:
            output = self._residual()(z, num_codebooks=count)
        return output

    def _residual(self) -> ResidualQuantizer:
        return as_residual(
            self.quantizer,
            f"{type(self.quantizer).__name__} has {self.n_codebooks} codebooks that are not stages, so they "
            "cannot be used, left out or read one by one; expected a ResidualQuantizer",
        )

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_batch(loss, z)


class TransformersDacAdapter(DacAdapter):
    """Replaces DacResidualVectorQuantizer of transformers (tested with 5.23): "dac" with losses [B] instead of
    [], and without indices from `from_latents`.

    Source: `models/dac/modeling_dac.py` in transformers.
    """

    contract: ClassVar[str] = "dac_transformers"
    classes: ClassVar[tuple[str, ...]] = ("DacResidualVectorQuantizer",)

    def from_latents(self, latents: Tensor) -> tuple[Tensor, ...]:
        """(z_q [B, D, T], the codes' vectors [B, n·d, T]) of latents [B, n·d, T] of the first n stages."""
        return super().from_latents(latents)[:2]

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_samples(loss, z)


def _only_sums(quantizer: ResidualQuantizer) -> bool:
    """Whether this is the plain recursion over stages, each of them a quantizer of its own."""
    plain = quantizer.entry is None and quantizer.log_scales is None
    distinct = len(set(quantizer.stages)) == len(quantizer.stages)
    return plain and distinct and isinstance(quantizer.project_in, nn.Identity)
