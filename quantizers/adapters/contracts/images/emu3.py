"""Emu3's video VQ-VAE in transformers: Emu3VQVAEVectorQuantizer."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer


class Emu3Adapter(EmbeddingAdapter):
    """Replaces Emu3VQVAEVectorQuantizer of transformers (tested with 5.23).

    h [B, T, C, H, W] → indices [B, T, H, W], those of evaluation in either mode. `embedding` returns their codes.

    The model's own forward trains neither the encoder nor the codes, just as with the original: it passes on
    indices alone, without a gradient or a loss, and no state changes. To train, call the quantizer between the
    model's modules:

        h = model.quant_conv(model.encoder(video).transpose(1, 2)).transpose(1, 2)
        quantized, indices, loss = model.quantize.quantizer(h)
        pixels = model.decoder(model.post_quant_conv(quantized.transpose(1, 2)).transpose(1, 2), quantized)

    Not supported: several codebooks, because the model distinguishes images from videos by the number of axes of
    their indices.

    Source: Wang et al.: Emu3: Next-Token Prediction is All You Need, 2024 (arXiv 2409.18869);
    `models/emu3/modeling_emu3.py` in transformers.

    Raises: ValueError for a quantizer with several codebooks.
    """

    contract: ClassVar[str] = "emu3"
    classes: ClassVar[tuple[str, ...]] = ("Emu3VQVAEVectorQuantizer",)
    channel_dim: ClassVar[int] = 2
    positions: ClassVar[int] = 3

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        if quantizer.composed:
            raise ValueError(
                f"quantizer is {type(quantizer).__name__}, which has {quantizer.num_codebooks} indices per "
                "vector, but this model reads indices [B, T, H, W]; expected a quantizer with one codebook"
            )
        super().__init__(quantizer, original)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = original.embedding.weight.shape
        return QuantizerSpec(dim, size, cls.channel_dim)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        indices = module(z)
        yield "forward", indices
        yield "embedding", module.embedding(indices)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    def forward(self, hidden_state: Tensor) -> Tensor:
        """See the class."""
        return self.quantizer.encode(hidden_state)
