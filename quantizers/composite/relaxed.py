"""Quantizers that change the value of another quantizer in training, and nothing else."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from quantizers.composite.enclosing import EnclosingQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput

Relax = Callable[[Rows, Tensor], Tensor]
"""The value [N, code_dim] in training, from vectors in the code space of a quantizer and their codes."""


class RelaxedQuantizer(EnclosingQuantizer):
    """A quantizer whose value in training lies between the vectors z and the codes q of another quantizer.

    In evaluation it is that quantizer. In training, indices, loss, gradients of the loss, moving averages and
    codebook are that quantizer's, too: every vector contributes to them, whatever its value is.

    z and q are taken in the code space of the quantizer inside. Where that quantizer projects (`code_dim`), both
    pass its two projections, so that the decoder never sees more channels than the codes have.

    A subclass defines `_relax`.

    Args:
        quantizer: any quantizer with its channels last, also one of maps.
        channel_dim: axis of x's channels.

    Raises: TypeError for something other than a Quantizer; ValueError for one with its channels on another axis.
    """

    @abc.abstractmethod
    def _relax(self, projected: Rows, codes: Tensor) -> Tensor:
        """See `Relax`; called in training only."""

    @property
    def evaluated(self) -> Quantizer:
        """The quantizer inside."""
        return self.quantizer.evaluated

    @property
    def stages(self) -> Sequence[Quantizer]:
        """The quantizers whose values add up to that of the quantizer inside."""
        return self.quantizer.stages

    @property
    def groups(self) -> Sequence[Quantizer]:
        """The groups of the quantizer inside."""
        return self.quantizer.groups

    @property
    def value_is_code(self) -> bool:
        """Whether training returns the code of each index."""
        return False

    @through_forward
    def decode(self, indices: Tensor, **options: Any) -> Tensor:
        """See `Quantizer.decode`.

        Args: options: those of the quantizer inside, such as `size` of a multi-scale quantizer.
        """
        vectors = self.quantizer.decode(indices, **options)
        return vectors.movedim(-1, self.channel_dim).contiguous()

    def decode_rows(self, indices: Tensor) -> Tensor:
        """`decode` for rows [N] or [N, num_codebooks] of indices: [N, dim]."""
        return self._decode(indices)

    def _quantize(self, rows: Rows, **options: Any) -> QuantizerOutput:
        return self._quantize_relaxed(rows, _unchanged, options)

    def _quantize_relaxed(self, rows: Rows, relax: Relax, options: dict[str, Any]) -> QuantizerOutput:
        """Quantize rows [N, dim]; in training `relax` changes the value that this quantizer has relaxed before."""
        if not self.training:
            own = _unchanged
        elif relax is _unchanged:
            own = self._relax
        else:
            own = lambda projected, codes: relax(projected, self._relax(projected, codes))  # noqa: E731
        output: QuantizerOutput = self.quantizer(MethodCall(_quantize_inside, (rows, own, options), {}))
        return output

    def _quantize_projected(self, rows: Rows, quantize: Callable[[Rows], QuantizerOutput]) -> QuantizerOutput:
        return quantize(rows)  # the quantizer inside projects, and marks the rows that are not valid


def _unchanged(projected: Rows, codes: Tensor) -> Tensor:
    return codes


def _quantize_inside(quantizer: Quantizer, rows: Rows, relax: Relax, options: dict[str, Any]) -> QuantizerOutput:
    """Quantize rows [N, dim] with a value that `relax` changes in code space."""
    if isinstance(quantizer, RelaxedQuantizer):
        return quantizer._quantize_relaxed(rows, relax, options)

    def quantize(projected: Rows) -> QuantizerOutput:
        output = quantizer._quantize(projected, **options)
        z = projected.with_vectors(quantizer._unquantized(projected.vectors))
        return QuantizerOutput(relax(z, output.quantized), output.indices, output.loss)

    return quantizer._quantize_projected(rows, quantize)
