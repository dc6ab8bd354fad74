"""Quantizers that treat a map of vectors as a whole."""

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.kernels.common.compat import nan


class MapQuantizer(Quantizer):
    """A quantizer of maps [..., *size, dim], whose L tokens per map stand on the last axis of its indices.

    A subclass sets `axes`, and defines `_quantize`, `encode_rows`, `split`, `tokens_per_codebook`, `decode`
    and `codebook`.
    """

    composed = True
    per_vector = False

    axes: int
    """How many of x's axes, the last ones beside its channels, are those of a map."""

    @abc.abstractmethod
    def split(self, indices: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Indices [..., L] as one map of tokens per codebook.

        Args: size: that of x, [axes].
        """

    @abc.abstractmethod
    def tokens_per_codebook(self, tokens: int) -> list[int]:
        """How many of a map's tokens each codebook gives, in the order of the indices.

        Args: tokens: L, of a map whose axes all have the same size.

        Raises: ValueError where no such map has L tokens.
        """

    @abc.abstractmethod
    def decode(self, indices: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The quantized vectors of indices [..., L]: [..., *size, dim], the channels on `channel_dim`."""

    def indices_by_codebook(
        self, indices: Tensor, x: Tensor, sizes: Sequence[Any] | None = None
    ) -> Sequence[Tensor]:
        """Split the indices that a forward or `encode` gave for x: one map per codebook.

        Args: sizes: those of the scales, if the call was given them.
        """
        own = x.movedim(self.channel_dim, -1).shape[-1 - self.axes : -1]
        return self.split(indices, own if sizes is None else sizes)

    def _reshape_indices(self, indices: Tensor, shape: torch.Size) -> Tensor:
        return indices.reshape(*shape[: -self.axes], indices.shape[-1])

    def _mark_missing(self, indices: Tensor, valid: Tensor) -> Tensor:
        return indices  # `_quantize` and `encode_rows` mark missing tokens themselves: a token is no single vector

    def _mark_rows(self, quantized: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return quantized.where(valid[:, None], nan(quantized)), indices

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        return valid

    def _check_columns(self, indices: Tensor) -> None:
        if not indices.ndim:
            raise ValueError("indices have shape (), expected [..., tokens]")
