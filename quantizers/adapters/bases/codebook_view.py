"""What models read of their quantizer's nn.Embedding, and the shapes of indices that they use."""

import torch
from torch import Tensor

from quantizers.core.base import Quantizer


class CodebookView:
    """Acts like the nn.Embedding of a model's own quantizer: looks codes up, returns the table and its sizes."""

    def __init__(self, quantizer: Quantizer, dtype: torch.dtype | None = None) -> None:
        self._quantizer = quantizer
        self._dtype = dtype

    def __call__(self, indices: Tensor) -> Tensor:
        """The vectors [..., dim] of indices, in `dtype`; by default in the quantizer's."""
        return decode_channels_last(self._quantizer, indices).to(self._dtype)

    @property
    def weight(self) -> Tensor:
        """All vectors, [K, dim]. Raises: ValueError if there are too many, or several codebooks."""
        if self._quantizer.composed:
            raise ValueError(
                f"{type(self._quantizer).__name__} has several codebooks, but the model reads a single table of "
                "codes; decode indices instead"
            )
        return self(torch.arange(len(self._quantizer.codebook), device=self._quantizer.codebook.device))

    @property
    def num_embeddings(self) -> int:
        """K."""
        return self._quantizer.codebook_size

    @property
    def embedding_dim(self) -> int:
        """The number of channels of a vector, as the model gets it."""
        return self._quantizer.dim


def decode_channels_last(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The vectors [..., dim] of indices [...], or [..., num_codebooks], whatever the quantizer's layout."""
    codebooks, shape = (indices.shape[-1:], indices.shape[:-1]) if quantizer.composed else ((), indices.shape)
    ones = (1,) * (quantizer.channel_dim - 1)  # as many axes as the layout has before its channels
    return quantizer.decode(indices.reshape(-1, *ones, *codebooks)).reshape(*shape, quantizer.dim)


def flat_indices(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """Indices [...] as [N]; with several codebooks as [N, num_codebooks]."""
    return indices.reshape(-1, indices.shape[-1]) if quantizer.composed else indices.reshape(-1)


def entry_shape(z: Tensor) -> tuple[int, ...]:
    """The argument `shape` of `get_codebook_entry`, (B, H, W, C), for vectors [B, C, H, W]."""
    return (z.shape[0], *z.shape[2:], z.shape[1])
