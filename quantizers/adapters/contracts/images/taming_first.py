"""VectorQuantizer of taming-transformers, which came before VectorQuantizer2."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.codebook_view import entry_shape, flat_indices
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import perplexity
from quantizers.adapters.contracts.images.taming import TamingAdapter

FirstInfo = tuple[Tensor, None, Tensor]


class TamingFirstAdapter(TamingAdapter):
    """Replaces VectorQuantizer of taming-transformers (main branch; tested with a stand-in).

    z [B, C, H, W] → (z_q [B, C, H, W], loss [], (perplexity [], None, indices [B·H·W, 1])). With several codebooks
    indices are [B·H·W, num_codebooks], and the perplexity is the sum over codebooks.

    Not supported: the one-hot vectors [B·H·W, K] of the indices, which the original returns instead of None. A
    matrix of that size is never made; `torch.nn.functional.one_hot` makes it from the indices.

    Source: Esser et al.: Taming Transformers for High-Resolution Image Synthesis, 2021 (arXiv 2012.09841);
    `taming/modules/vqvae/quantize.py`.
    """

    contract: ClassVar[str] = "taming_first"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        # Other classes of this name and with these sizes have one of these, and return other things.
        other = next((name for name in ("remap", "l2_norm") if hasattr(original, name)), None)
        if other is not None:
            raise TypeError(f"it has {other}, unlike the first version")
        # beta weights the codebook loss, as in the second version with `legacy`.
        keep_options = {"commitment_weight": 1.0, "codebook_weight": original.beta}
        return QuantizerSpec(original.e_dim, original.n_e, cls.channel_dim, keep_codebook_options=keep_options)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        quantized, loss, (found, _, indices) = module(z)  # without the one-hot vectors
        yield "forward", (quantized, loss, (found, indices))
        yield "get_codebook_entry", module.get_codebook_entry(indices.reshape(-1), entry_shape(z))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, FirstInfo]:  # type: ignore[override]
        """See the class."""
        quantized, indices, loss = self.quantizer(z)
        columns = flat_indices(self.quantizer, indices).reshape(-1, self.quantizer.num_codebooks)
        return quantized, loss, (perplexity(columns), None, columns)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The vectors of indices [N] or [N, 1]: [B, C, H, W] for shape (B, H, W, C), [N, C] without a shape."""
        if not self.quantizer.composed:
            indices = indices.reshape(-1)
        return super().get_codebook_entry(indices, shape)
