"""The quantizer of Emu3's video VQ-VAE in transformers."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter, CodebookView, Place
from quantizers.core.base import Quantizer


class Emu3Adapter(Adapter):
    """h [B, T, C, H, W] → indices [B, T, H, W], those of evaluation in either mode; `embedding` gives their codes.

    Nothing is learned through it, as through the original: the model hands on indices, without gradient or loss,
    and no state moves. A training loop calls ours instead, between the model's parts:

        h = model.quant_conv(model.encoder(video).transpose(1, 2)).transpose(1, 2)
        quantized, indices, loss = model.quantize.quantizer(h)
        pixels = model.decoder(model.post_quant_conv(quantized.transpose(1, 2)).transpose(1, 2), quantized)

    Wang et al.: Emu3: Next-Token Prediction is All You Need, 2024 (arXiv 2409.18869), as transformers has it.

    Raises: ValueError for a quantizer with several codebooks: the model tells images from videos by the axes of
        their indices.
    """

    contract: ClassVar[str] = "emu3"
    classes: ClassVar[tuple[str, ...]] = ("Emu3VQVAEVectorQuantizer",)
    channel_dim: ClassVar[int] = 2

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        if quantizer.composed:
            raise ValueError(
                f"quantizer is {type(quantizer).__name__}, which has {quantizer.num_codebooks} indices a vector; "
                "this model reads indices [B, T, H, W]: expected a quantizer with one"
            )
        super().__init__(quantizer, original)

    @classmethod
    def read(cls, original: Any) -> Place:
        size, dim = original.embedding.weight.shape
        return Place(dim, size, cls.channel_dim)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    def forward(self, hidden_state: Tensor) -> Tensor:
        """As above."""
        return self.quantizer.encode(hidden_state)

    @property
    def embedding(self) -> CodebookView:
        """The codes, which the model's decoder looks up."""
        return CodebookView(self.quantizer, self.dtype)
