"""The quantizer of Janus's VQ-VAE in transformers."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.contracts.chameleon import ChameleonAdapter


class JanusAdapter(ChameleonAdapter):
    """Chameleon's contract, and `get_codebook_entry`, which divides the codes of indices by their norms.

    The model decodes indices alone, so that its decoder meets unit vectors, while `forward` gives the code as it
    is. The two agree where codes have unit norm: a new codebook gets distance="cosine" where the method has it. A
    kept one is searched and given back as the original did.

    The model's own `forward` decodes the indices of `encode`: no gradient of the reconstruction reaches the
    encoder. A training loop that wants it decodes `encode(x).quantized_last_hidden_state`.

    It takes one index a place, and raises for several codebooks, which `plug_in` therefore refuses within a
    language model; of a VQ-VAE alone `decode` takes the indices of `encode` as [B, H·W, num_codebooks].

    Chen et al.: Janus-Pro, 2025 (arXiv 2501.17811), as transformers has it.
    """

    contract: ClassVar[str] = "janus"
    classes: ClassVar[tuple[str, ...]] = ("JanusVQVAEVectorQuantizer",)

    @classmethod
    def read(cls, original: Any) -> Place:
        place = super().read(original)
        return place._replace(options={"distance": "cosine"}, kept={**place.kept, "distance": "euclidean"})

    @property
    def quant_state_dims(self) -> list[int]:
        """Height and width of the map of indices."""
        dims: list[int] = self.original.quant_state_dims
        return dims

    def get_codebook_entry(self, image_tokens: Tensor) -> Tensor:
        """The unit vectors [B, C, H, W] of indices [B, H·W], where (H, W) are `quant_state_dims`.

        Of several codebooks indices are [B, H·W, num_codebooks] or [B, H·W·num_codebooks].
        """
        codebooks = (self.quantizer.num_codebooks,) if self.quantizer.composed else ()
        maps = image_tokens.reshape(len(image_tokens), *self.quant_state_dims, *codebooks)
        return functional.normalize(self.embedding(maps), dim=-1).movedim(-1, 1).contiguous()
