"""The two residual quantizers of Mimi in transformers, one semantic and one acoustic."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput


class MimiAdapter(StagesAdapter):
    """Replaces MimiResidualVectorQuantizer of transformers (tested with 5.23).

    encode(z [B, D, T], num_quantizers=None) → codes [n, B, T]; decode(codes [B, n, T]) → [B, D, T].

    A model has two such quantizers side by side. Both quantize the same z, the semantic one for what is said and
    the acoustic one for how it sounds; the sum of their vectors is decoded. `plug_in(mimi, "simvq")` replaces
    both, and `at="quantizer.acoustic_residual_vector_quantizer"` only one. The model itself splits and joins the
    codes, so each half needs as many codebooks as before.

    The convolutions in front of a half and behind it, between D channels and those of the codes, stay. They belong
    to the model, as its encoder does: they are trained with it, and `unplug` leaves them as they are.

    The model's own forward passes codes, without a gradient and without a loss. The original has no forward; this
    one returns the quantizer's output, for a training loop:

        halves = [half(latents) for half in plugged(mimi).values()]
        quantized, loss = sum(out.quantized for out in halves), sum(out.loss for out in halves)

    With `keep_codebook` codes are m / max(N, ε), as in the model. EMA codes continue from N and m, with the
    smoothing of EMAVectorQuantizer instead of that bound.

    Not supported: another number of codebooks than the original's.

    Source: Défossez et al.: Moshi: a speech-text foundation model for real-time dialogue, 2024 (arXiv 2410.00037),
    §3.3; `models/mimi/modeling_mimi.py` in transformers.

    Raises: ValueError for another number of codebooks.
    """

    contract: ClassVar[str] = "mimi"
    classes: ClassVar[tuple[str, ...]] = ("MimiResidualVectorQuantizer",)
    replaced_together: ClassVar[bool] = True

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        expected = getattr(original, "num_quantizers", quantizer.num_codebooks)
        if quantizer.num_codebooks != expected:
            raise ValueError(
                f"quantizer has {quantizer.num_codebooks} codebooks, expected the {expected} of "
                f"{type(original).__name__}: the model splits its codes between the two halves by this number"
            )
        super().__init__(quantizer, original)
        self.input_proj: nn.Module = getattr(original, "input_proj", None) or nn.Identity()
        self.output_proj: nn.Module = getattr(original, "output_proj", None) or nn.Identity()

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        stages = cls.stages(original)
        size, dim = stages[0].codebook.embed_sum.shape
        return QuantizerSpec(
            dim, size, cls.channel_dim, len(stages), keep_codebook_options={"epsilon": stages[0].codebook.epsilon}
        )

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        channels = original.input_proj.in_channels if original.input_proj else spec.dim
        return super().example(original, spec._replace(dim=channels))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        codes = module.encode(z)
        yield "encode", codes
        yield "decode", module.decode(codes.transpose(0, 1))

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        # The property `embed` would cache them in the original, and ignore weights that are loaded later.
        cluster_size, embedding_sum = cls.averages(stage)
        return embedding_sum / cluster_size.clamp(min=stage.codebook.epsilon)[:, None]

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage.codebook.cluster_usage, stage.codebook.embed_sum

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None
    ) -> QuantizerOutput:
        """The quantizer's output for x [B, D, T]: quantized [B, D, T], indices [B, T, n], loss []. mask: bool [B,
        T]."""
        out: QuantizerOutput = self.quantizer(self.input_proj(x), mask, **self._codebook_option(num_quantizers))
        return QuantizerOutput(self.output_proj(out.quantized), out.indices, out.loss)

    def encode(self, embeddings: Tensor, num_quantizers: int | None = None) -> Tensor:
        """See the class. The indices are those of evaluation, in either mode."""
        return self._encode(self.input_proj(embeddings), num_quantizers)

    def decode(self, codes: Tensor) -> Tensor:
        """See the class."""
        decoded: Tensor = self.output_proj(self._decode(codes.transpose(0, 1)))
        return decoded
