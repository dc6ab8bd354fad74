"""VectorQuantizer of ImageFolder and XQ-GAN, for tokenizers of one scale."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.adapters.bases.distances import check_distance, distance_of
from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import utilization
from quantizers.core.base import Quantizer

Encoded = tuple[Tensor, list[Tensor | float], Tensor, Tensor, float]


class ImageFolderSingleAdapter(EmbeddingAdapter):
    """Replaces VectorQuantizer of github.com/lxa9867/ImageFolder, `xqgan_model.py`, which a tokenizer of one scale
    has (no release; tested with a stand-in): XQ-GAN's VQ and RobustTok.

    z [B, C, H, W] → (z_q [B, C, H, W], [usage []], loss [], 0 [], 0.0). The usage is the percentage of codes
    that occur in the batch, or zero with `ret_usages=False`; the original averages over many steps and all
    processes. The loss of the new quantizer stands in the place of the codebook loss; the commitment and the
    entropy are zero. A new codebook lies on the unit sphere if the original's does (`codebook_norm`).

    A model with `product_quant` above 1 has one quantizer for each group of its latents. Replace all of them with
    `plug_in(model, "simvq", at=["quantizes.0", "quantizes.1"])`.

    With several codebooks indices are [B·H·W, num_codebooks], and the usage is the mean over codebooks. The
    original's forward works in training only; this one in evaluation too.

    Not supported: the running averages `ema_vocab_hit_SV`; several codebooks in a model that adds perturbations
    (RobustTok), which reads a single table.

    Source: Li et al.: XQ-GAN: An Open-source Image Tokenization Framework for Autoregressive Generation, 2024
    (arXiv 2412.01762); `tokenizer/tokenizer_image/xqgan_model.py`.
    """

    contract: ClassVar[str] = "imagefolder_single"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2
    omitted_methods: ClassVar[tuple[str, ...]] = ("no_weight_decay",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, dim = original.vocab_size, original.z_channels
        options = {"distance": _distance(original)}
        keep_options = {"commitment_weight": original.beta, "codebook_weight": 1.0}
        return QuantizerSpec(dim, size, cls.channel_dim, options=options, keep_codebook_options=keep_options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes: Tensor = original.embedding.weight
        return torch.nn.functional.normalize(codes, dim=-1) if original.codebook_norm else codes

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes. Raises: ValueError for a quantizer that compares them in another way."""
        check_distance(quantizer, _distance(original))
        super().copy_codebook(original, quantizer)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of encoding and decoding; the original's forward fails in evaluation."""
        yield "f_to_idxBl_or_fhat", module.f_to_idxBl_or_fhat(z, to_fhat=True, v_patch_nums=None)
        yield "indices", module.f_to_idxBl_or_fhat(z, to_fhat=False, v_patch_nums=None)

    def forward(self, z: Tensor, ret_usages: bool = True, dropout: None = None) -> Encoded:
        """See the class. Args: dropout: not used; a quantizer of one scale has nothing to leave out."""
        quantized, indices, loss = self.quantizer(z)
        usage = 100 * utilization(self.quantizer, indices) if ret_usages else 0.0
        return quantized, [usage], loss, torch.zeros_like(loss), 0.0

    def f_to_idxBl_or_fhat(self, z: Tensor, to_fhat: bool, v_patch_nums: object = None) -> list[Tensor]:
        """The indices [B·H·W], or with `to_fhat` the quantized vectors [B, C, H, W], as a list of one.

        Args: v_patch_nums: not used; there is one scale, that of z.
        """
        indices = self.quantizer.encode(z)
        return [self._decode_indices(indices) if to_fhat else flat_indices(self.quantizer, indices)]

    @property
    def vocab_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def z_channels(self) -> int:
        """C."""
        return self.quantizer.dim

    @property
    def codebook_norm(self) -> bool:
        """Whether vectors and codes lie on the unit sphere."""
        return distance_of(self.quantizer) == "cosine"


def _distance(original: Any) -> str:
    return "cosine" if original.codebook_norm else "euclidean"
