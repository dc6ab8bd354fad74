"""DAC's ResidualVectorQuantize of Descript's package, and DacResidualVectorQuantizer of transformers."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter, Place, as_residual, stages_of
from quantizers.adapters.contracts.dac_stage import (
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
    """z [B, D, T] → (z_q [B, D, T], codes [B, N, T], latents [B, N·d, T], commitment [], codebook loss []).

    Kumar et al.: High-Fidelity Audio Compression with Improved RVQGAN, 2023 (arXiv 2306.06546), published code.
    All of our loss stands in the place of the codebook loss, whose customary weight is 1; the commitment is zero.
    Latents are what each stage looks a code up for, see `quantizers.composite.latents`.

    In training a sample keeps its first stages alone with the probability that the original's `quantizer_dropout`
    was, which a quantizer built from a name takes over. **Where a stage was left out, its code is −1**, which
    `from_codes` takes for zero, so that it gives z_q again; the original writes there what the stage would have
    chosen. A loss on codes has to leave out −1.

    `model.save(path)` of Descript's package writes a package that imports this library where it is loaded. **With
    `package=False` it writes weights alone**: `DAC.load` makes a model with its own quantizer of them,
    untrained, and says nothing, for it loads what it knows and leaves the rest. Plug in, then load:

        model = plug_in(dac.DAC(**saved["metadata"]["kwargs"]), "vq")  # saved = torch.load(path)
        model.load_state_dict(saved["state_dict"])
    """

    contract: ClassVar[str] = "dac"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantize",)
    channel_dim: ClassVar[int] = 1
    has_stages: ClassVar[bool] = True

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        for part in quantizer.stages:
            project_as_convolutions(part)

    @classmethod
    def read(cls, original: Any) -> Place:
        places = [DacStageAdapter.read(stage) for stage in original.quantizers]
        dropout = {"dropout": float(original.quantizer_dropout), "dropout_by": "sample"}
        if not places or any(place != places[0] for place in places):
            sizes = [(place.dim, place.codebook_size, place.options["code_dim"]) for place in places]
            raise ValueError(
                f"{type(original).__name__} has stages of channels, codes and code channels {sizes}; expected at "
                "least one stage, and the same for all"
            )
        return places[0]._replace(stages=len(places), options={**places[0].options, **dropout})

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return torch.stack([DacStageAdapter.trained_codebook(stage) for stage in original.quantizers])

    @classmethod
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        """Carry codes and projections of the stages over. Raises: ValueError for stages that do not choose as
        theirs, and for a quantizer that does more than sum them."""
        refusal = (
            f"{type(quantizer).__name__} cannot keep a codebook of DAC, whose stages have one each and get "
            "residuals as they are; expected a ResidualQuantizer of distinct stages, without entry, scales or "
            "projections of its own"
        )
        if not _only_sums(as_residual(quantizer, refusal)):
            raise ValueError(refusal)
        parts = stages_of(quantizer, len(original.quantizers))
        for part, stage in zip(parts, original.quantizers, strict=True):
            DacStageAdapter.keep(stage, part)

    def forward(self, z: Tensor, n_quantizers: int | None = None) -> Encoded:
        """As above.

        Args: n_quantizers: how many codebooks to use in evaluation; in training it is dropout that says so.

        Raises: ValueError or TypeError for z of another shape or dtype; ValueError for as many codebooks as no
            first stages have, and for a quantizer whose codebooks are not stages.
        """
        quantized, indices, loss = self._quantized(z, None if self.training else n_quantizers)
        latents = latents_of(self.quantizer, z, indices)
        return quantized, indices.movedim(-1, 1), latents, *self._losses(loss, z)

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(z_q [B, D, T], the codes themselves [B, n·d, T], codes) of codes [B, n, T] of the first n codebooks.

        Raises: as `Quantizer.decode`.
        """
        indices = codes.movedim(1, -1)
        return self._decoded(indices), latent_codes(self.quantizer, indices).to(self.dtype), codes

    def from_latents(self, latents: Tensor) -> tuple[Tensor, ...]:
        """(z_q [B, D, T], the codes [B, n·d, T], indices [B, n, T]) of latents [B, n·d, T] of the first n stages.

        Raises: ValueError for channels that no first stages have.
        """
        return self.from_codes(encode_latents(self.quantizer, latents).movedim(-1, 1))

    @property
    def quantizers(self) -> list[Stage]:
        """The stages, as models read them. Raises: ValueError for a quantizer without."""
        return [Stage(part, self.dtype) for part in self._residual().stages]

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
        """Channels of a code, of each stage."""
        return [stage.codebook_dim for stage in self.quantizers]

    @property
    def quantizer_dropout(self) -> float:
        """The probability that a sample in training keeps its first stages alone. May be assigned."""
        return self._residual().dropout

    @quantizer_dropout.setter
    def quantizer_dropout(self, dropout: float) -> None:
        self._residual().dropout = dropout

    def _quantized(self, z: Tensor, count: int | None) -> QuantizerOutput:
        if count is None or count == self.n_codebooks:
            output: QuantizerOutput = self.quantizer(z)
        else:
            output = self._residual()(z, num_codebooks=count)
        return output

    def _residual(self) -> ResidualQuantizer:
        return as_residual(
            self.quantizer,
            f"{type(self.quantizer).__name__} has {self.n_codebooks} codebooks that are not stages, some of "
            "which could be asked for, left out or read; expected a ResidualQuantizer",
        )

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_batch(loss, z)


class TransformersDacAdapter(DacAdapter):
    """The same, with losses [B] and no indices from `from_latents`."""

    contract: ClassVar[str] = "dac_transformers"
    classes: ClassVar[tuple[str, ...]] = ("DacResidualVectorQuantizer",)

    def from_latents(self, latents: Tensor) -> tuple[Tensor, ...]:
        """(z_q [B, D, T], the codes [B, n·d, T]) of latents [B, n·d, T] of the first n stages."""
        return super().from_latents(latents)[:2]

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_samples(loss, z)


def _only_sums(quantizer: ResidualQuantizer) -> bool:
    """Whether it is the plain recursion of stages, each of which stands once."""
    plain = quantizer.entry is None and quantizer.log_scales is None
    distinct = len(set(quantizer.stages)) == len(quantizer.stages)
    return plain and distinct and isinstance(quantizer.project_in, nn.Identity)
