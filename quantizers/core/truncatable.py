"""Quantizers whose first codebooks are a quantizer of their own, and that learn to work with fewer by dropout."""

import abc
from typing import Literal

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_integer
from quantizers.core.codebook_dropout import draw_depths
from quantizers.core.layout import Rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.row_quantizer import RowQuantizer


class TruncatableQuantizer(RowQuantizer):
    """A quantizer of several parts (stages, groups or heads), of which the first can be used without the others.

    With `num_codebooks=n`, forward and `encode` use the first parts, which together have n codebooks; `decode`
    takes the indices of the first n. In a forward in training, with probability `dropout`, a sample (or the whole
    batch) uses only its first parts, as many as `draw_depths` draws. The parts left out have index −1, add nothing
    to the value, and learn nothing.

    A subclass sets `dropout` and `dropout_by` in its constructor, and defines the three methods below.
    """

    truncatable = True

    dropout: float
    dropout_by: Literal["sample", "batch"]

    @property
    @abc.abstractmethod
    def codebook_counts(self) -> tuple[int, ...]:
        """The number of codebooks of the first part, the first two parts, and so on."""

    @abc.abstractmethod
    def _quantize_first(self, parts: int, projected: Rows) -> QuantizerOutput:
        """`_quantize` with the first parts alone; indices are [N, codebooks of these parts]."""

    @abc.abstractmethod
    def _encode_first(self, parts: int, z: Tensor) -> Tensor:
        """`_encode` with the first parts alone."""

    @property
    def draws_in_training(self) -> bool:
        """Whether dropout or a component draws random numbers."""
        return self.dropout > 0 or super().draws_in_training

    @property
    def same_indices_in_training(self) -> bool:
        """Whether training uses every codebook, and gives the same indices as `encode`."""
        return self.dropout == 0 and super().same_indices_in_training

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> QuantizerOutput:
        """Quantize x with the first codebooks.

        Args:
            x, mask: see Quantizer.
            num_codebooks: how many codebooks to use, from the first; default all. The later ones are left out:
                indices are [..., num_codebooks], and they add no loss and do not change their state. The number
                may differ from step to step and from rank to rank. In training the parameters left out get a
                gradient of zero, as with `dropout`, so that DistributedDataParallel needs no
                `find_unused_parameters`; an optimizer's moments and weight decay still move them.

        Raises: as Quantizer; ValueError unless the first parts (stages, groups or heads) together have that many
            codebooks, for some number of parts.
        """
        if isinstance(x, MethodCall):
            return x.run(self)
        quantized, indices, loss = self._forward_first(x, mask, num_codebooks)
        return QuantizerOutput(quantized, indices, loss.sum())

    @through_forward
    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None) -> Tensor:
        """The indices that evaluation gives for x, in either mode: int64 [..., num_codebooks].

        Args: num_codebooks: how many codebooks to use, from the first; default all.

        Raises: as `forward`.
        """
        return self._encode_input(x, mask, num_codebooks=num_codebooks)

    def encode_rows(self, rows: Rows, num_codebooks: int | None = None) -> Tensor:
        """`encode` for rows [N, dim], called by quantizers that contain this one."""
        parts, projected = self._count_parts(num_codebooks), self._project_in(rows)
        return self._mark_missing(self._encode_first(parts, projected.vectors), projected.valid)

    def _forward_first(self, x: Tensor, mask: Tensor | None, num_codebooks: int | None) -> QuantizerOutput:
        """`forward` with the losses as `_quantize_first` returns them."""
        return self._forward(x, mask, lambda projected: self._quantize(projected, num_codebooks))

    def _quantize(self, rows: Rows, num_codebooks: int | None = None) -> QuantizerOutput:
        return self._quantize_first(self._count_parts(num_codebooks), rows)

    def _encode(self, z: Tensor) -> Tensor:
        return self._encode_first(len(self.codebook_counts), z)

    def _count_parts(self, num_codebooks: int | None) -> int:
        """How many of the first parts together have that many codebooks; all for None."""
        counts = self.codebook_counts
        if num_codebooks is None:
            return len(counts)
        num_codebooks = check_integer("num_codebooks", num_codebooks)
        if num_codebooks not in counts:
            raise ValueError(f"num_codebooks is {num_codebooks}, expected one of {[*counts]}")
        return counts.index(num_codebooks) + 1

    def _check_columns(self, indices: Tensor) -> None:
        if not indices.ndim:
            super()._check_columns(indices)
        columns, counts = indices.shape[-1], self.codebook_counts
        if columns not in counts:
            raise ValueError(f"indices have {columns} columns on the last axis, expected one of {[*counts]}")

    def _draw_depths(self, projected: Rows) -> Tensor | None:
        """How many parts each row uses, [N] int64; None for all."""
        if not self.training or self.dropout == 0:
            return None
        return draw_depths(projected, len(self.codebook_counts), self.dropout, self.dropout_by == "sample")
