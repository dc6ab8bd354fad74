"""Janus's VQ-VAE in transformers: JanusVQVAEVectorQuantizer."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.chameleon import ChameleonAdapter


class JanusAdapter(ChameleonAdapter):
    """Replaces JanusVQVAEVectorQuantizer of transformers (tested with 5.23).

    The contract is "chameleon" with `get_codebook_entry(indices)`, which returns codes divided by their norms. The
    model decodes from indices alone, so its decoder gets unit vectors, whereas `forward` returns codes as they
    are. The two agree if codes have unit norm: a new codebook gets distance="cosine" if the method supports it. A
    codebook that is kept is searched and returned exactly as by the original.

    In the model's own `forward` no gradient of the reconstruction reaches the encoder, because it decodes the
    indices of `encode`. To train the encoder, decode `encode(x).quantized_last_hidden_state` instead.

    Not supported: several codebooks inside a language model; `plug_in` raises ValueError. In a VQ-VAE alone,
    `decode` takes the indices of `encode` as [B, H·W, num_codebooks].

    Source: Chen et al.: Janus-Pro, 2025 (arXiv 2501.17811); `models/janus/modeling_janus.py` in transformers.
    """

    contract: ClassVar[str] = "janus"
    classes: ClassVar[tuple[str, ...]] = ("JanusVQVAEVectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        spec = super().read_spec(original)
        return spec._replace(
            options={"distance": "cosine"},
            keep_codebook_options={**spec.keep_codebook_options, "distance": "euclidean"},
        )

    @property
    def quant_state_dims(self) -> list[int]:
        """The height and width of the map of indices."""
        dims: list[int] = self.original.quant_state_dims
        return dims

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return torch.randn(2, spec.dim, *original.quant_state_dims)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "get_codebook_entry", module.get_codebook_entry(out[2].reshape(len(z), -1))

    def get_codebook_entry(self, image_tokens: Tensor) -> Tensor:
        """The unit vectors [B, C, H, W] of indices [B, H·W], where (H, W) are `quant_state_dims`.

        With several codebooks indices are [B, H·W, num_codebooks] or [B, H·W·num_codebooks].
        """
        codebooks = (self.quantizer.num_codebooks,) if self.quantizer.composed else ()
        maps = image_tokens.reshape(len(image_tokens), *self.quant_state_dims, *codebooks)
        return functional.normalize(self.embedding(maps), dim=-1).movedim(-1, 1).contiguous()
