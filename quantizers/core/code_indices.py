"""The form of indices: one per vector, or one per codebook on an axis of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_integers, check_tensor
from quantizers.core.output import NO_CODE
from quantizers.kernels.common.modes import has_values
from quantizers.kernels.rows.operation import marked_rows


class CodeIndices:
    """What is asked of indices: their range, their axes, and which of them are missing."""

    codebook_size: int
    num_codebooks: int

    composed: bool = False
    """Whether a vector has several indices, on an axis of their own."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes in each codebook, in the order of the indices."""
        return (self.codebook_size,) * self.num_codebooks

    def indices_by_codebook(
        self, indices: Tensor, x: Tensor, sizes: Sequence[Any] | None = None
    ) -> Sequence[Tensor]:
        """Split the indices that a forward or `encode` gave for x: one tensor, of any shape, per codebook.

        Args: sizes: those of the scales, if a quantizer of maps was called with them.
        """
        return indices.unbind(-1) if self.composed else (indices,)

    @property
    def _missing_index(self) -> int:
        """What replaces −1 in the indices that `_decode` gets: with one codebook any code, which is discarded."""
        return NO_CODE if self.composed else 0

    def _mark_missing(self, indices: Tensor, valid: Tensor) -> Tensor:
        """Indices of rows, −1 for the rows that are not valid [N]."""
        return indices.where(valid[:, None] if self.composed else valid, NO_CODE)

    def _mark_rows(self, quantized: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [N, dim] and `_mark_missing` of their indices, NaN for the rows that are not valid [N]."""
        return marked_rows(quantized, indices, valid)

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        """Which rows are valid after they were quantized, [N]."""
        return valid

    def _reshape_indices(self, indices: Tensor, shape: torch.Size) -> Tensor:
        """Indices of rows, in the shape of x without its channel axis."""
        return indices.reshape((*shape, *indices.shape[1:]))

    def _check_indices(self, indices: Tensor) -> Tensor:
        """The indices as int64.

        Raises: TypeError for another dtype; ValueError for a wrong last axis; IndexError for a value outside
            [−1, codebook_size).
        """
        check_integers("indices have", check_tensor("indices", indices))
        indices = indices.long()
        if self.composed:
            self._check_columns(indices)
        if not has_values(indices) or not indices.numel():
            return indices
        low, high = indices.aminmax()
        if low < NO_CODE or high > self.codebook_size - 1:
            raise IndexError(
                f"indices range from {int(low)} to {int(high)}, expected 0 to {self.codebook_size - 1}, "
                f"or {NO_CODE} for a vector without a code"
            )
        return indices

    def _check_columns(self, indices: Tensor) -> None:
        if not indices.ndim or indices.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected {self.num_codebooks} on the last axis, "
                "one for each codebook"
            )
