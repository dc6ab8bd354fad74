"""The quantizer of GLM-Image's VQ-VAE in transformers."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.contracts.chameleon import ChameleonAdapter


class GlmImageAdapter(ChameleonAdapter):
    """Chameleon's contract for codes on the unit sphere: vectors and codes are divided by their norms.

    So are ours where the method can do it, with distance="cosine". Kept codes are carried over as unit vectors.
    """

    contract: ClassVar[str] = "glm_image"
    classes: ClassVar[tuple[str, ...]] = ("GlmImageVQVAEVectorQuantizer",)

    @classmethod
    def read(cls, original: Any) -> Place:
        return super().read(original)._replace(options={"distance": "cosine"})

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return functional.normalize(original.embedding.weight, dim=-1)
