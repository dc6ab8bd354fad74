"""Several quantizers of the same vectors, side by side."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.composite.composed import ComposedQuantizer, all_valid, check_component, joined
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.forwarding import forwarding, forwards
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.kernels.common.vectors import are_finite


class ParallelQuantizer(ComposedQuantizer, RowQuantizer):
    """Quantize each vector by several quantizers that all see the same vector; the value is the mean of theirs.

    Use it for several targets per vector: registered as "parallel", it builds random projections, each with a
    projection and codes of its own. Google USM (Zhang et al. 2023, arXiv 2303.01037) predicts the indices of
    several such codebooks of BEST-RQ.

        value (1/n) Σ_i Q_i(z),  loss (1/n) Σ_i loss_i

    Random projections are for targets, not for reconstruction; see RandomProjectionQuantizer for the normalization
    that they need. Unlike the stages of a residual quantizer, no quantizer knows what the others have found, and
    unlike the groups of a grouped one each sees all channels.

    Example:
        >>> import torch
        >>> from quantizers import ParallelQuantizer, RandomProjectionQuantizer
        >>> quantizer = ParallelQuantizer(80, [RandomProjectionQuantizer(80, 8192) for _ in range(4)])
        >>> quantizer.encode(torch.randn(2, 100, 80)).shape
        torch.Size([2, 100, 4])

    Args:
        dim: channels of x; where it differs from the quantizers' own, x is projected.
        quantizers: at least one quantizer, all with the same number of channels.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_codebooks], loss [].

    Raises: ValueError if `quantizers` is empty, or if their channels differ.
    """

    @checked
    def __init__(self, dim: Size, quantizers: Sequence[Quantizer], *, channel_dim: int = -1) -> None:
        if not quantizers:
            raise ValueError("quantizers is empty, expected at least one quantizer")
        widths = [check_component(quantizer).dim for quantizer in quantizers]
        if len(set(widths)) > 1:
            raise ValueError(f"quantizers have {widths} channels, expected the same number for all")
        super().__init__(dim, quantizers, code_dim=widths[0], channel_dim=channel_dim)

    @classmethod
    @forwards(others=f"each quantizer; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "random_projection",
        num_quantizers: Size = 2,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build `num_quantizers` quantizers of one kind, each with random numbers of its own.

        Args:
            quantizer: the name, class or function of each quantizer, as for `create`.
            num_quantizers: how many.
            options: all go to each quantizer.
        """
        with forwarding(cls.from_options):
            built = repeated(lambda: create(quantizer, dim, **options), num_quantizers, shared=False)
        return cls(dim, built, channel_dim=channel_dim)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_quantizers={len(self.order)}"

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        outputs = [component.nested_quantize(rows) for component in self.components]
        codes = _mean([output.quantized for output in outputs])
        indices = joined([output.indices for output in outputs])
        loss = torch.stack([output.loss.sum() for output in outputs]) / len(outputs)
        valid = are_finite(codes)
        return QuantizerOutput(codes.where(valid[:, None], 0.0), self._mark_missing(indices, valid), loss)

    def _encode(self, z: Tensor) -> Tensor:
        indices = joined([component.nested_encode(all_valid(z)) for component in self.components])
        return self._mark_missing(indices, (indices >= 0).all(-1))

    def _decode(self, indices: Tensor) -> Tensor:
        pairs = zip(self.components, self._columns(indices), strict=True)
        return _mean([component.nested_decode(column) for component, column in pairs])

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        columns = self._columns(indices)
        return [(item, projected.vectors, own) for item, own in zip(self.components, columns, strict=False)]

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Initialize each quantizer from all vectors; no quantizer waits for another."""
        for component in dict.fromkeys(self.components):
            component.initialize_rows(all_valid(z), process_group)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape, always summed in the same order."""
    return torch.stack([value / len(values) for value in values]).sum(0)


register("parallel", ParallelQuantizer.from_options)
