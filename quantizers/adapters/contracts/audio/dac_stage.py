"""DAC's single quantizer: VectorQuantize of Descript's package, DacVectorQuantize of transformers."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.copying import set_codebook
from quantizers.adapters.bases.distances import distance_of
from quantizers.adapters.bases.linear_maps import copy_maps
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.composite.latents import encode_latents, latent_codes, latents_of
from quantizers.core.base import Quantizer
from quantizers.core.projection import Projection


class CodeTable:
    """Acts like a stage's nn.Embedding: looks up codes, before the projection out."""

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype) -> None:
        self._quantizer = quantizer
        self._dtype = dtype

    def __call__(self, indices: Tensor) -> Tensor:
        """The codes [..., d] of indices."""
        return latent_codes(self._quantizer, indices).movedim(self._quantizer.channel_dim, -1).to(self._dtype)

    @property
    def weight(self) -> Tensor:
        """All codes, [K, d]. Raises: ValueError if there are too many to list."""
        return self._quantizer.codebook.to(self._dtype)


class Pointwise(Projection):
    """A linear map of rows [N, in], which also maps [B, in, T] like the 1 × 1 convolution that it replaces.

    Its parameters stay in float32 in a model of half precision; its output has the dtype of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = (x if x.dim() < 3 else x.movedim(1, -1)).to(self.weight.dtype)
        mapped = super().forward(rows).to(x.dtype)
        return mapped if x.dim() < 3 else mapped.movedim(-1, 1)


def project_as_convolutions(quantizer: Quantizer) -> None:
    """Make a quantizer's projections, if it has any, callable like DAC's. Their parameters and names stay."""
    for name in ("project_in", "project_out"):
        linear = quantizer.get_submodule(name)
        if type(linear) is Projection:
            with torch.device("meta"):  # draws nothing
                pointwise = Pointwise(linear.in_features, linear.out_features)
            pointwise.weight, pointwise.bias = linear.weight, linear.bias
            setattr(quantizer, name, pointwise)


class StageView:
    """Gives a quantizer the attributes of a DAC stage: codes and latents [B, d, T] in code space, projections."""

    quantizer: Quantizer
    dtype: torch.dtype

    @property
    def codebook(self) -> CodeTable:
        """The codes, before the projection out, in the model's dtype."""
        return CodeTable(self.quantizer, self.dtype)

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """d, the number of channels of a code."""
        return self.quantizer.code_dim

    @property
    def in_proj(self) -> nn.Module:
        """The projection to code space, for z [B, D, T] and for rows. Weight norm can be applied to it.

        Raises: ValueError if codes are as wide as vectors, as those of FSQ are inside stages.
        """
        return self._projection(self.quantizer.project_in)

    @property
    def out_proj(self) -> nn.Module:
        """The projection from code space, see `in_proj`."""
        return self._projection(self.quantizer.project_out)

    def embed_code(self, indices: Tensor) -> Tensor:
        """The codes [B, T, d] of indices [B, T]."""
        return self.codebook(indices)

    def decode_code(self, indices: Tensor) -> Tensor:
        """The codes [B, d, T] of indices [B, T]."""
        return self.embed_code(indices).movedim(-1, 1)

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The codes [B, d, T] of latents [B, d, T], and their indices [B, T]."""
        indices = encode_latents(self.quantizer, latents.movedim(1, self.quantizer.channel_dim))
        return self.decode_code(indices), indices

    def _projection(self, projection: nn.Module) -> nn.Module:
        if isinstance(projection, nn.Identity):
            raise ValueError(
                f"a stage is {type(self.quantizer).__name__} of {self.quantizer.dim} channels, which has no "
                "projection of its own; expected a stage whose code_dim differs from its dim"
            )
        return projection


class Stage(StageView):
    """A stage of a residual quantizer, as models read it."""

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype) -> None:
        self.quantizer = quantizer
        self.dtype = dtype


class DacStageAdapter(StageView, Adapter):
    """Replaces VectorQuantize of the package descript-audio-codec (1.0.0; tested with a stand-in).

    z [B, D, T] → (z_q [B, D, T], commitment [B], codebook loss [B], indices [B, T], z_e [B, d, T]). z_e is z in
    code space. With several codebooks indices have one more axis, the last.

    The codebook loss, whose usual weight is 1, is the whole loss of the new quantizer, the same for each sample;
    the commitment is zero.

    With `keep_codebook` codes are compared by angle, as in the original, and the projections are copied.

    Source: Kumar et al.: High-Fidelity Audio Compression with Improved RVQGAN, 2023 (arXiv 2306.06546);
    `dac/nn/quantize.py`.
    """

    contract: ClassVar[str] = "dac_stage"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantize",)
    channel_dim: ClassVar[int] = 1

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        project_as_convolutions(quantizer)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if hasattr(original, "stride"):
            raise AttributeError(f"{type(original).__name__} has a stride, as a stage of SNAC")
        return read_stage(original)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "decode_latents", module.decode_latents(out[4])
        yield "embed_code", module.embed_code(out[3])
        yield "decode_code", module.decode_code(out[3])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.codebook.weight
        return codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy codes and projections. Raises: ValueError for a quantizer that chooses codes in another way."""
        projections = quantizer.project_in, quantizer.project_out
        projects = all(isinstance(projection, Projection) for projection in projections)
        if not projects or distance_of(quantizer) != "angle":
            raise ValueError(
                f"{type(quantizer).__name__} cannot keep a codebook of DAC, which projects vectors and chooses "
                "codes by angle; expected 'vq', 'ema_vq', 'rotation_vq', 'simvq' or another with distance='angle' "
                "and code_dim other than dim"
            )
        set_codebook(quantizer, cls.trained_codebook(original))
        copy_maps(quantizer, original.in_proj, original.out_proj)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See the class. Raises: ValueError or TypeError for z of another shape or dtype."""
        quantized, indices, loss = self.quantizer(z)
        commitment, codebook_loss = self._losses(loss, z)
        return quantized, commitment, codebook_loss, indices, latents_of(self.quantizer, z, indices)

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_samples(loss, z)


class TransformersDacStageAdapter(DacStageAdapter):
    """Replaces DacVectorQuantize of transformers (tested with 5.23): "dac_stage" with losses [] instead of [B].

    Source: `models/dac/modeling_dac.py` in transformers.
    """

    contract: ClassVar[str] = "dac_stage_transformers"
    classes: ClassVar[tuple[str, ...]] = ("DacVectorQuantize",)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "decode_latents", module.decode_latents(out[4])

    def _losses(self, loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return losses_of_batch(loss, z)


def read_stage(stage: Any) -> QuantizerSpec:
    """What a model needs from a stage of DAC, or of a codec with the same projections and search."""
    size, width = stage.codebook.weight.shape
    keep_options = {"distance": "angle", "commitment_weight": 0.25, "codebook_weight": 1.0}
    return QuantizerSpec(
        dim=stage.out_proj.out_channels,
        codebook_size=size,
        channel_dim=DacStageAdapter.channel_dim,
        options={"code_dim": width},
        keep_codebook_options=keep_options,
    )


def losses_of_batch(loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Commitment and codebook loss [] for z [B, ...]; the second is the whole loss."""
    return torch.zeros_like(loss), loss


def losses_of_samples(loss: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Commitment and codebook loss [B] for z [B, ...]; the mean of the second is the whole loss."""
    return loss.new_zeros(z.shape[:1]), loss.expand(z.shape[:1])
