"""The quantizer of Chameleon's VQ-VAE in transformers."""

from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.adapter import Adapter, CodebookView, Place, flat_indices


class ChameleonAdapter(Adapter):
    """h [B, C, H, W] → (quantized [B, C, H, W], loss [], indices [B·H·W]).

    Of several codebooks indices have one more axis, last. Chameleon Team: Chameleon: Mixed-Modal Early-Fusion
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
