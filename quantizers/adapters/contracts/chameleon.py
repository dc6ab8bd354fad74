"""The quantizer of Chameleon's VQ-VAE in transformers."""

from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter, CodebookView, Place, flat_indices
from quantizers.core.base import Quantizer


class ChameleonAdapter(Adapter):
    """h [B, C, H, W] → (quantized [B, C, H, W], loss [], indices [B·H·W]).

    Of several codebooks indices have one more axis, last; a language model around it, which has one token for each
    place, does not take them: `plug_in` refuses. Chameleon Team: Chameleon: Mixed-Modal Early-Fusion
    Foundation Models, 2024 (arXiv 2405.09818), as transformers has it.

    A language model has as many image tokens as the original had codes. With another `codebook_size`, or one that
    a method rounds, as FSQ does, indices beyond them are no tokens of its vocabulary.
    """

    contract: ClassVar[str] = "chameleon"
    classes: ClassVar[tuple[str, ...]] = ("ChameleonVQVAEVectorQuantizer",)
    channel_dim: ClassVar[int] = 1

    @classmethod
    def read(cls, original: Any) -> Place:
        size, dim = original.embedding.weight.shape
        # As in taming-transformers, beta is at the codebook's term.
        kept = {"commitment_weight": 1.0, "codebook_weight": original.beta}
        return Place(dim, size, cls.channel_dim, kept=kept)

    @classmethod
    def check_model(cls, model: nn.Module, quantizer: Quantizer) -> None:
        """Raises: ValueError for several codebooks within a language model."""
        readers = ("get_image_tokens", "language_model")
        if quantizer.composed and any(hasattr(part, name) for part in model.modules() for name in readers):
            raise ValueError(
                f"quantizer is {type(quantizer).__name__}, which has {quantizer.num_codebooks} indices a vector; "
                f"{type(model).__name__} reads one token for each place: expected a quantizer with one codebook"
            )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return codes

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above."""
        quantized, indices, loss = self.quantizer(hidden_state)
        return quantized, loss, flat_indices(self.quantizer, indices)

    @property
    def embedding(self) -> CodebookView:
        """The codes, as the nn.Embedding that models read."""
        return CodebookView(self.quantizer, self.dtype)

    @property
    def num_embeddings(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def embedding_dim(self) -> int:
        """Channels of h."""
        return self.quantizer.dim
