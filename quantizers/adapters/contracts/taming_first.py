"""taming-transformers' first VectorQuantizer, before VectorQuantizer2."""

from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.adapter import Place, flat_indices
from quantizers.adapters.bases.perplexity import perplexity
from quantizers.adapters.contracts.taming import TamingAdapter

FirstInfo = tuple[Tensor, None, Tensor]


class TamingFirstAdapter(TamingAdapter):
    """z [B, C, H, W] → (z_q [B, C, H, W], loss [], (perplexity [], None, indices [B·H·W, 1])).

    Indices are [B·H·W, num_codebooks] of several codebooks, and the perplexity is the sum of theirs. Where the
    original has the indices once more as one-hot vectors [B·H·W, K] stands None: no matrix of that size is made;
    `torch.nn.functional.one_hot` makes it from the indices.

    Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841), the published
    code.
    """

    contract: ClassVar[str] = "taming_first"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)

    @classmethod
    def read(cls, original: Any) -> Place:
        # Both are of other quantizers with this name and these sizes, which return other things.
        other = next((name for name in ("remap", "l2_norm") if hasattr(original, name)), None)
        if other is not None:
            raise TypeError(f"it has {other}, which the first version has not")
        # beta is at the codebook's term, as in the second version with `legacy`.
        kept = {"commitment_weight": 1.0, "codebook_weight": original.beta}
        return Place(original.e_dim, original.n_e, cls.channel_dim, kept=kept)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, FirstInfo]:  # type: ignore[override]
        """As above."""
        quantized, indices, loss = self.quantizer(z)
        columns = flat_indices(self.quantizer, indices).reshape(-1, self.quantizer.num_codebooks)
        return quantized, loss, (perplexity(columns), None, columns)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The vectors of indices [N] or [N, 1]: [B, C, H, W] for shape (B, H, W, C), [N, C] without."""
        if not self.quantizer.composed:
            indices = indices.reshape(-1)
        return super().get_codebook_entry(indices, shape)
