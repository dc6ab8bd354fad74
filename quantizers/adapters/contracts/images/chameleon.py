"""Chameleon's VQ-VAE in transformers: ChameleonVQVAEVectorQuantizer."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer


class ChameleonAdapter(EmbeddingAdapter):
    """Replaces ChameleonVQVAEVectorQuantizer of transformers (tested with 5.23).

    h [B, C, H, W] → (quantized [B, C, H, W], loss [], indices [B·H·W]). With several codebooks indices are
    [B·H·W, num_codebooks].

    Not supported: several codebooks inside a language model, which has one token for each vector; `plug_in` raises
    ValueError. A language model has as many image tokens as the original had codes. With a larger `codebook_size`,
    or one that a method rounds up, such as FSQ's, the additional indices are no tokens of its vocabulary.

    Source: Chameleon Team: Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024 (arXiv 2405.09818);
    `models/chameleon/modeling_chameleon.py` in transformers.
    """

    contract: ClassVar[str] = "chameleon"
    classes: ClassVar[tuple[str, ...]] = ("ChameleonVQVAEVectorQuantizer",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = original.embedding.weight.shape
        # As in taming-transformers, beta weights the codebook loss.
        keep_options = {"commitment_weight": 1.0, "codebook_weight": original.beta}
        return QuantizerSpec(dim, size, cls.channel_dim, keep_codebook_options=keep_options)

    @classmethod
    def check_quantizer(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Raises: ValueError for several codebooks inside a language model."""
        readers = ("get_image_tokens", "language_model")
        if quantizer.composed and any(hasattr(module, name) for module in model.modules() for name in readers):
            raise ValueError(
                f"quantizer is {type(quantizer).__name__}, which has {quantizer.num_codebooks} indices per "
                f"vector, but {type(model).__name__} reads one token per vector; expected a quantizer with one "
                "codebook"
            )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        quantized, indices, loss = self.quantizer(hidden_state)
        return quantized, loss, flat_indices(self.quantizer, indices)

    @property
    def num_embeddings(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def embedding_dim(self) -> int:
        """The number of channels of h."""
        return self.quantizer.dim
