"""VectorQuantizer of LlamaGen, which many image tokenizers use."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from quantizers.adapters.bases.codebook_view import entry_shape, flat_indices
from quantizers.adapters.bases.embedding import EmbeddingAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import utilization
from quantizers.training.regularizers import Entropy

Losses = Sequence[Tensor | float | None]
Info = tuple[None, None, Tensor]


class LlamaGenAdapter(EmbeddingAdapter):
    """Replaces VectorQuantizer of LlamaGen (main branch; tested with a stand-in), also in FQGAN, ImageFolder and
    UniTok.

    z [B, C, H, W] → (z_q [B, C, H, W], (vq_loss, commit_loss, entropy_loss, codebook_usage), (None, None, indices
    [B·H·W])). With several codebooks indices are [B·H·W, num_codebooks].

    In training the first loss, [], is the whole loss of the quantizer, and the other two are zero: models add the
    three. In evaluation there are no losses, only None. With `show_usage` the fourth value is, in training, the
    fraction of codes that the batch uses, as a tensor; the original takes the last 65,536 vectors. Otherwise it is
    zero.

    If the original has `l2_norm`, a new codebook gets distance="cosine" if the method supports it, so that codes
    and z_q have unit norm. `keep_codebook` copies the codes as the original returns them, with `l2_norm` as unit
    vectors, and sets the weights of the losses, including that of the entropy.

    FQGAN has two or three of these quantizers, each for a part of the channels; pass all paths as `at`.

    Source: Sun et al.: Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation, 2024 (arXiv
    2406.06525); `tokenizer/tokenizer_image/vq_model.py`.
    """

    contract: ClassVar[str] = "llamagen"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantizer",)
    channel_dim: ClassVar[int] = 1
    positions: ClassVar[int] = 2

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if hasattr(original, "rot"):
            raise TypeError("it has rot, like GigaTok's class of this name")
        return cls._read_sizes(original)

    @classmethod
    def _read_sizes(cls, original: Any) -> QuantizerSpec:
        size, dim = original.embedding.weight.shape
        ratio = original.entropy_loss_ratio
        keep_options = {
            "commitment_weight": original.beta,
            "codebook_weight": 1.0,
            "regularizers": [Entropy(ratio)] if ratio > 0 else [],
        }
        options = {"distance": "cosine" if original.l2_norm else "euclidean"}
        return QuantizerSpec(dim, size, cls.channel_dim, options=options, keep_codebook_options=keep_options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The codes as the original returns them: with `l2_norm` they have unit norm."""
        codes = cls._table(original)
        return functional.normalize(codes, dim=-1) if original.l2_norm else codes

    @classmethod
    def _table(cls, original: Any) -> Tensor:
        """The original's codes [K, C] before any normalization."""
        codes: Tensor = original.embedding.weight
        return codes

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """Each call that models make, with its label and what it returned."""
        output = module(z)
        yield "forward", output
        indices = output[2][2]
        yield "get_codebook_entry", module.get_codebook_entry(indices)
        yield "get_codebook_entry with a shape", module.get_codebook_entry(indices, tuple(z.shape))
        last = module.get_codebook_entry(indices, entry_shape(z), channel_first=False)
        yield "get_codebook_entry with channel_first=False", last

    def forward(self, z: Tensor) -> tuple[Tensor, Losses, Info]:
        """See the class."""
        quantized, indices, loss = self.quantizer(z)
        flat = flat_indices(self.quantizer, indices)
        return quantized, self._losses(loss, flat), (None, None, flat)

    def _losses(self, loss: Tensor, indices: Tensor) -> Losses:
        if not self.training:
            return None, None, None, 0
        zero = torch.zeros_like(loss)
        if not getattr(self.original, "show_usage", False):
            return loss, zero, zero, 0
        return loss, zero, zero, utilization(self.quantizer, indices)

    def get_codebook_entry(
        self, indices: Tensor, shape: Sequence[int] | None = None, channel_first: bool = True
    ) -> Tensor:
        """The vectors of flat indices: [N, C] without a shape, else in that shape.

        Args:
            shape: (B, C, H, W), or (B, H, W, C) if `channel_first` is False.
        """
        vectors = self.embedding(indices)
        if shape is None:
            return vectors
        if not channel_first:
            return vectors.reshape(*shape)
        batch, channels, *positions = shape
        return vectors.reshape(batch, *positions, channels).movedim(-1, 1).contiguous()

    @property
    def n_e(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def e_dim(self) -> int:
        """The number of channels of z."""
        return self.quantizer.dim
