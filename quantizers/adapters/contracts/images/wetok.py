"""GFQ of WeTok."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.open_magvit2 import Indices, OpenMagvit2Adapter
from quantizers.core.base import Quantizer


class WeTokAdapter(OpenMagvit2Adapter):
    """Replaces GFQ of WeTok (main branch; tested with a stand-in).

    The contract is "open_magvit2". With `token_factorization`, as in the model that generates indices, indices are
    a list with [B·H·W] for each codebook, and `get_codebook_entry(indices, (B, H, W, D), index_order=i)` returns
    the vectors [B, D, H, W] of the i-th codebook. The model concatenates those of all codebooks along the
    channels, so the quantizer must have groups of channels with one codebook each, as it gets from a name.

    Not supported: `factorized_bits` other than those of the codebooks; the rest as in "open_magvit2".

    Source: Zhuang et al.: WeTok, 2025 (arXiv 2508.05599); `src/WeTok/modules/vqvae/lookup_free_quantize.py`.
    """

    contract: ClassVar[str] = "wetok"
    classes: ClassVar[tuple[str, ...]] = ("GFQ",)

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        super().__init__(quantizer, original)
        if self.token_factorization and len(quantizer.groups) != quantizer.num_codebooks:
            raise ValueError(
                f"quantizer has {quantizer.num_codebooks} codebooks for {len(quantizer.groups)} groups of "
                "channels, but the model decodes one codebook for each group; expected a GroupedQuantizer without "
                "stages"
            )

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        bits = [original.codebook_dim] * original.num_codebooks
        if original.token_factorization and list(original.factorized_bits) != bits:
            raise ValueError(
                f"{type(original).__name__} has factorized_bits={list(original.factorized_bits)}, expected "
                f"{bits}, one part for each codebook"
            )
        return cls._read_sizes(original)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """Each call that models make, with its label and what it returned."""
        if not module.token_factorization:
            yield from super().calls(module, z)
            return
        output, breakdown = module(z, return_loss_breakdown=True)
        yield "forward with return_loss_breakdown", (output, breakdown)
        batch, channels, height, width = z.shape
        shape = (batch, height, width, channels // len(output[2]))
        for number, indices in enumerate(output[2]):
            codes = indices.reshape(batch, -1)
            yield "get_codebook_entry", module.get_codebook_entry(codes, shape, index_order=number)

    @property
    def token_factorization(self) -> bool:
        """Whether indices are a list, with a tensor for each codebook."""
        return bool(getattr(self.original, "token_factorization", False))

    @property
    def factorized_bits(self) -> Sequence[int]:
        """The number of channels of each codebook."""
        bits: Sequence[int] = self.original.factorized_bits
        return bits

    def _returned(self, indices: Tensor) -> Indices:
        if not self.token_factorization:
            return super()._returned(indices)
        columns = indices.reshape(-1, self.num_codebooks)
        return list(columns.unbind(-1))

    def get_codebook_entry(  # type: ignore[override]
        self, x: Tensor, bhwc: Sequence[int], index_order: int | None = None
    ) -> Tensor:
        """The vectors [B, D, H, W] of indices [B, H·W]; with `token_factorization` those of one codebook.

        Args:
            bhwc: (B, H, W, D). index_order: the number of the codebook; without `token_factorization` it has no
                effect.
        """
        if not self.token_factorization:
            return super().get_codebook_entry(x, bhwc)
        group = self.quantizer.groups[index_order or 0]
        return CodebookView(group, self.dtype)(x.reshape(*bhwc[:3])).movedim(-1, 1)
