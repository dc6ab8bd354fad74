"""FactorizedVectorQuantize of Amphion's codec, which MaskGCT, Metis and Vevo use."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.dac_stage import DacStageAdapter
from quantizers.adapters.contracts.audio.factorized import FactorizedAdapter


class AmphionAdapter(FactorizedAdapter):
    """Replaces FactorizedVectorQuantize of github.com/open-mmlab/Amphion, `models/codec/amphion_codec` (no
    release; tested with a stand-in).

    z [B, D, T] → (z_q [B, D, T], commitment [B], codebook loss [B], indices [B, T], z_e [B, d, T]), as of a stage
    of DAC: z_e is z in code space; the codebook loss is the whole loss of the new quantizer, the same for each
    sample, and the commitment is zero. With several codebooks indices have one more axis, the last.

    These classes are the stages of a ResidualVQ of the same repository. Replace each of them by its path:
    `plug_in(model, "simvq", at=["quantizer.quantizers.0", "quantizer.quantizers.1"])`.

    With `keep_codebook` codes are compared as in the original, by angle or distance (`use_l2_normlize`), and the
    projections are copied.

    Not supported: `latent2dist`, which returns the distances of all vectors to all codes.

    Source: Wang et al.: MaskGCT: Zero-Shot Text-to-Speech with Masked Generative Codec Transformer, 2024
    (arXiv 2409.00750); `models/codec/amphion_codec/quantize/factorized_vector_quantize.py`.
    """

    contract: ClassVar[str] = "factorized_amphion"
    classes: ClassVar[tuple[str, ...]] = ("FactorizedVectorQuantize",)
    omitted_methods: ClassVar[tuple[str, ...]] = ("latent2dist",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if not hasattr(original, "use_l2_normlize"):
            raise TypeError("it has no use_l2_normlize, unlike the one of Amphion's codec")
        return cls._read_factorized(original)

    @classmethod
    def _projections(cls, original: Any) -> tuple[nn.Module, nn.Module]:
        return original.in_project, original.out_project

    @classmethod
    def _distance(cls, original: Any) -> str:
        return "angle" if original.use_l2_normlize else "euclidean"

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of ResidualVQ."""
        output = module(z)
        yield "forward", output
        yield "vq2emb", module.vq2emb(output[3])
        yield "vq2emb(out_proj=False)", module.vq2emb(output[3], out_proj=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # type: ignore[override]
        """See the class. Raises: ValueError or TypeError for z of another shape or dtype."""
        return DacStageAdapter.forward(self, z)

    def vq2emb(self, vq: Tensor, out_proj: bool = True) -> Tensor:
        """The vectors [B, D, T] of indices [B, T]; with out_proj=False their codes [B, d, T]."""
        return super().vq2emb(vq, out_proj)

    @property
    def in_project(self) -> nn.Module:
        """The projection to code space, see `in_proj`."""
        return self.in_proj

    @property
    def out_project(self) -> nn.Module:
        """The projection from code space, see `in_proj`."""
        return self.out_proj

    @property
    def input_dim(self) -> int:
        """D."""
        return self.quantizer.dim
