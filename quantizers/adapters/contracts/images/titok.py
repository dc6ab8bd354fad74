"""VectorQuantizer of TiTok, TA-TiTok and MaskGen."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.distances import check_distance, distance_of
from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer


class TiTokAdapter(EmbeddingAdapter):
    """Replaces VectorQuantizer of github.com/bytedance/1d-tokenizer (no release; tested with a stand-in): TiTok,
    TA-TiTok and MaskGen.

    z [B, C, H, W] → (z_q [B, C, H, W], losses and indices), where H is 1 in these models. The second result is a
    dict: `quantizer_loss` [], which is the new quantizer's, `commitment_loss` [], which is zero, `codebook_loss`
    [], which is the whole loss again, and `min_encoding_indices` [B, H, W]. With several codebooks indices have
    one more axis, the last. z_q has the dtype of z; the original's is float32.

    A new codebook lies on the unit sphere if the original's does (`use_l2_norm`).

    The second stage of TiTok freezes the quantizer (`finetune_decoder`), so that what is plugged in then learns
    nothing: plug in for the first stage, or with `keep_codebook`. Pass at="quantize" there, because
    `pixel_quantize`, of which the model reads the table alone, follows no contract.

    Not supported: probabilities [N, K] in the place of indices. Training goes on without the replacement of codes
    that are rarely used (`clustering_vq`); `quantizers.DeadCodeReplacement` is an alternative.

    Source: Yu et al.: An Image is Worth 32 Tokens for Reconstruction and Generation, 2024 (arXiv 2406.07550);
    `modeling/quantizer/quantizer.py`.
    """

    contract: ClassVar[str] = "titok"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = original.codebook_size, original.token_size
        options = {"distance": _distance(original)}
        keep_options = {"commitment_weight": original.commitment_cost, "codebook_weight": 1.0}
        return QuantizerSpec(dim, size, cls.channel_dim, options=options, keep_codebook_options=keep_options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return functional.normalize(codes, dim=-1) if original.use_l2_norm else codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes. Raises: ValueError for a quantizer that compares them in another way."""
        check_distance(quantizer, _distance(original))
        super().copy_codebook(original, quantizer)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of TiTok's `encode` and `decode_tokens`."""
        output = module(z)
        yield "forward", output
        yield "get_codebook_entry", module.get_codebook_entry(output[1]["min_encoding_indices"].reshape(-1))

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See the class."""
        quantized, indices, loss = self.quantizer(z)
        return quantized, {
            "quantizer_loss": loss,
            "commitment_loss": torch.zeros_like(loss),
            "codebook_loss": loss.clone(),  # TiTok changes each of them in place
            "min_encoding_indices": indices,
        }

    def get_codebook_entry(self, indices: Tensor) -> Tensor:
        """The vectors [N, C] of indices [N]; with several codebooks [N, num_codebooks].

        Raises: ValueError for probabilities.
        """
        if indices.is_floating_point():
            raise ValueError(
                f"indices are {indices.dtype} of shape {tuple(indices.shape)}, probabilities of all codes, which "
                "this contract does not support; expected integers"
            )
        return self.embedding(indices)

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def token_size(self) -> int:
        """C."""
        return self.quantizer.dim

    @property
    def use_l2_norm(self) -> bool:
        """Whether vectors and codes lie on the unit sphere."""
        return distance_of(self.quantizer) == "cosine"


def _distance(original: Any) -> str:
    return "cosine" if original.use_l2_norm else "euclidean"
