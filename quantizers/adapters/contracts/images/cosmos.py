"""VectorQuantizer of the Cosmos tokenizers."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.codebook_view import entry_shape, flat_indices
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import perplexity
from quantizers.adapters.contracts.images.cosmos_fsq import loss_of_samples
from quantizers.adapters.contracts.images.taming import TamingAdapter

CosmosInfo = tuple[Tensor, None, Tensor, Tensor, Tensor]


class CosmosAdapter(TamingAdapter):
    """Replaces VectorQuantizer of github.com/NVIDIA/Cosmos-Tokenizer (no release; tested with a stand-in).

    z [B, C, H, W] → (z_q [B, C, H, W], loss [B, 1, 1, 1], (indices [B·H·W], None, codebook loss [], 0 [],
    perplexity [])). The loss is that of the new quantizer, the same for each sample, and the third value of the
    tuple repeats it without a gradient. With several codebooks indices are [B·H·W, num_codebooks], and the
    perplexity is the sum over codebooks.

    If the original divides vectors and codes by their norms after its search (`use_norm`), a new quantizer does so
    before it, by distance="cosine".

    Not supported: `remap`, the arguments of forward that are meant for a Gumbel quantizer, and `keep_codebook`
    with `use_norm`.

    Source: `cosmos_tokenizer/modules/quantizers.py`; see CosmosFSQAdapter.
    """

    contract: ClassVar[str] = "cosmos"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        normalizes = _normalizes(original)  # no other class of the name has such a method
        options = {"distance": "cosine"} if normalizes else {}
        return super().read_spec(original)._replace(options=options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        if _normalizes(original):
            raise ValueError(
                f"{type(original).__name__} has use_norm=True: it searches its codes as they are and returns them "
                "as unit vectors, which no quantizer of this library does; expected keep_codebook=False"
            )
        return super().trained_codebook(original)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """A forward, and the lookup of its indices."""
        output = module(z)
        yield "forward", output
        yield "get_codebook_entry", module.get_codebook_entry(output[2][0], entry_shape(z))

    def forward(  # type: ignore[override]
        self, z: Tensor, temp: float | None = None, rescale_logits: bool = False, return_logits: bool = False
    ) -> tuple[Tensor, Tensor, CosmosInfo]:
        """See the class. Raises: ValueError for an argument that is meant for a Gumbel quantizer."""
        quantized, loss, (_, _, indices) = super().forward(z, temp, rescale_logits, return_logits)
        columns = flat_indices(self.quantizer, indices).reshape(-1, self.quantizer.num_codebooks)
        total = loss.detach()
        info = flat_indices(self.quantizer, indices), None, total, torch.zeros_like(total), perplexity(columns)
        return quantized, loss_of_samples(loss, z), info


def _normalizes(original: Any) -> bool:
    """Whether `norm` divides by the norm. It is a function that closes over the option."""
    two = torch.full((1, 1), 2.0)
    return not torch.equal(original.norm(two), two)
