"""GLM-Image's VQ-VAE in transformers: GlmImageVQVAEVectorQuantizer."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.chameleon import ChameleonAdapter


class GlmImageAdapter(ChameleonAdapter):
    """Replaces GlmImageVQVAEVectorQuantizer of transformers (tested with 5.23).

    The contract is "chameleon", for codes on the unit sphere: the original divides vectors and codes by their
    norms. A new quantizer does the same, by distance="cosine", if the method supports it. With `keep_codebook`
    the codes are copied as unit vectors.

    Source: `models/glm_image/modeling_glm_image.py` in transformers.
    """

    contract: ClassVar[str] = "glm_image"
    classes: ClassVar[tuple[str, ...]] = ("GlmImageVQVAEVectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        return super().read_spec(original)._replace(options={"distance": "cosine"})

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return functional.normalize(original.embedding.weight, dim=-1)
