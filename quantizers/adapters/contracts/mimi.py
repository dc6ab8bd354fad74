"""The residual quantizers of Mimi's two halves, semantic and acoustic, as transformers has them."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput


class MimiAdapter(StagesAdapter):
    """encode(z [B, D, T], num_quantizers=None) → codes [n, B, T]; decode(codes [B, n, T]) → [B, D, T].

    Défossez et al.: Moshi: a speech-text foundation model for real-time dialogue, 2024 (arXiv 2410.00037), §3.3.
    Two of these stand side by side and quantize the same z, the first for what is said, the second for how it
    sounds; their sum is decoded. `plug_in(mimi, "simvq")` replaces both, and one with
    `at="quantizer.acoustic_residual_vector_quantizer"`. What splits and joins the codes stays the model's own, so
    each half has as many codebooks as before.

    The convolutions that lead into a half and out of it, D channels to those of the codes, are kept. They are the
    model's, as its encoder is: they are trained on with it, and `unplug` leaves them so.

    The model's own forward passes codes, with no gradient and no loss. The original has no forward; this one gives
    our output, for a loop that trains:

        halves = [half(latents) for half in plugged(mimi).values()]
        quantized, loss = sum(out.quantized for out in halves), sum(out.loss for out in halves)

    Kept codes are m / max(N, ε), as the model's. EMA codes go on from N and m, with the smoothing of
    EMAVectorQuantizer in the place of that bound.
    """

    contract: ClassVar[str] = "mimi"
    classes: ClassVar[tuple[str, ...]] = ("MimiResidualVectorQuantizer",)
    side_by_side: ClassVar[bool] = True

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        expected = getattr(original, "num_quantizers", quantizer.num_codebooks)
        if quantizer.num_codebooks != expected:
            raise ValueError(
                f"quantizer has {quantizer.num_codebooks} codebooks, expected the {expected} of "
                f"{type(original).__name__}: the model splits its codes there"
            )
        super().__init__(quantizer, original)
        self.input_proj: nn.Module = getattr(original, "input_proj", None) or nn.Identity()
        self.output_proj: nn.Module = getattr(original, "output_proj", None) or nn.Identity()

    @classmethod
    def read(cls, original: Any) -> Place:
        stages = cls.stages(original)
        size, dim = stages[0].codebook.embed_sum.shape
        return Place(dim, size, cls.channel_dim, len(stages), kept={"epsilon": stages[0].codebook.epsilon})

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        # Its property `embed` would leave them in the original for good, whatever is loaded into it later.
        cluster_size, embedding_sum = cls.averages(stage)
        return embedding_sum / cluster_size.clamp(min=stage.codebook.epsilon)[:, None]

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage.codebook.cluster_usage, stage.codebook.embed_sum

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None
    ) -> QuantizerOutput:
        """Our output for x [B, D, T]: quantized [B, D, T], indices [B, T, n], loss []. mask: bool [B, T]."""
        out: QuantizerOutput = self.quantizer(self.input_proj(x), mask, **self._first(num_quantizers))
        return out._replace(quantized=self.output_proj(out.quantized))

    def encode(self, embeddings: Tensor, num_quantizers: int | None = None) -> Tensor:
        """As above: the indices of evaluation, in either mode."""
        return self._encode(self.input_proj(embeddings), num_quantizers)

    def decode(self, codes: Tensor) -> Tensor:
        """As above."""
        decoded: Tensor = self.output_proj(self._decode(codes.transpose(0, 1)))
        return decoded
