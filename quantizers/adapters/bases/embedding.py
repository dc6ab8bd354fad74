"""A base for contracts whose models read the table of codes."""

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import CodebookView


class EmbeddingAdapter(Adapter):
    """Has the attribute `embedding`, which is an nn.Embedding in the original."""

    @property
    def embedding(self) -> CodebookView:
        """The codes, with the interface of the nn.Embedding that models read; unit vectors where codes have unit
        norm."""
        return CodebookView(self.quantizer, self.dtype)
