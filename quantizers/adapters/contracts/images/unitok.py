"""VectorQuantizerM of UniTok, which quantizes groups of channels."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.copying import groups_of, set_codebook
from quantizers.adapters.bases.distances import check_distance
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import utilization
from quantizers.core.base import Quantizer

Encoded = tuple[Tensor, Tensor, Tensor | float, Tensor]


class UniTokAdapter(Adapter):
    """Replaces VectorQuantizerM of github.com/FoundationVision/UniTok (no release; tested with a stand-in), also
    in the copy that its Liquid uses.

    features [B, L, C] → (quantized [B, L, C], loss [], 0, usage []). The third value stands for the original's
    entropy loss: it is a tensor if the original has one (`use_entropy_loss`), otherwise a number. The usage is the
    percentage of codes that occur in the batch, the mean over the codebooks.

    The original has a codebook for each group of channels, and so has a quantizer that is built from a name
    ("grouped"), or one for all with `shared=True`. New codes lie on the unit sphere, by distance="cosine", if the
    method supports it.

    Not supported: the entropy loss; `quantizers.regularizers.Entropy` is an alternative. The running averages
    `vocab_usage`.

    Source: Ma et al.: UniTok: A Unified Tokenizer for Visual Generation and Understanding, 2025 (arXiv
    2502.20321); `models/quant.py`.
    """

    contract: ClassVar[str] = "unitok"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizerM",)
    omitted_methods: ClassVar[tuple[str, ...]] = ("init_vocab",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        first, count = original.codebooks[0], original.num_codebooks
        size, width = first.codebook.weight.shape
        keep_options = {"commitment_weight": first.beta, "codebook_weight": 1.0}
        return QuantizerSpec(
            count * width,
            size,
            cls.channel_dim,
            options={"distance": "cosine"},
            keep_codebook_options=keep_options,
            num_groups=count,
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The codes of all groups, [num_codebooks, K, C / num_codebooks]."""
        codes = torch.stack([codebook.codebook.weight for codebook in original.codebooks])
        return functional.normalize(codes, dim=-1)

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes of each group. Raises: ValueError for groups that compare them in another way."""
        codes = cls.trained_codebook(original)
        for group, own in zip(groups_of(quantizer, len(codes)), codes, strict=True):
            check_distance(group, "cosine")
            set_codebook(group, own)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of UniTok's forward, `img_to_idx` and `idx_to_img`."""
        yield "forward", module(z)
        indices = module.f_to_idx(z)
        yield "f_to_idx", indices
        yield "idx_to_f", module.idx_to_f(indices)

    def forward(self, features: Tensor) -> Encoded:
        """See the class."""
        quantized, indices, loss = self.quantizer(features)
        codebooks = getattr(self.original, "codebooks", ())
        has_entropy = any(codebook.use_entropy_loss for codebook in codebooks)
        entropy = torch.zeros_like(loss) if has_entropy else 0.0
        return quantized, loss, entropy, 100 * utilization(self.quantizer, indices)

    def f_to_idx(self, features: Tensor) -> Tensor:
        """The indices [B, num_codebooks, L] of features [B, L, C]."""
        indices = self.quantizer.encode(features)
        return indices.movedim(-1, 1) if self.quantizer.composed else indices[:, None]

    def idx_to_f(self, indices: Tensor) -> Tensor:
        """The vectors [B, L, C] of indices [B, num_codebooks, ...], whose last axes are taken in order."""
        rows = indices.flatten(2).movedim(1, -1)
        return self._decode_indices(rows if self.quantizer.composed else rows[..., 0])

    @property
    def num_codebooks(self) -> int:
        """The number of codebooks."""
        return self.quantizer.num_codebooks
