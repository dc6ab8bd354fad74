"""No quantization, with the interface of a quantizer."""

import torch
from torch import Tensor
from typing_extensions import Self

from quantizers.core.arguments.checks import Count, Size
from quantizers.core.arguments.options import checked
from quantizers.core.layout import Rows
from quantizers.core.output import NO_CODE, QuantizerOutput
from quantizers.core.registry import register
from quantizers.core.row_quantizer import RowQuantizer


class Identity(RowQuantizer):
    """The unquantized baseline: `quantized` is x, and the loss is zero.

    Use it to measure what the bottleneck costs without quantization, or to warm up an autoencoder.

    It has no codes: `codebook_size` is 0, every index is −1, and `decode` and `codebook` raise ValueError. Masked
    vectors become zero and vectors that are not finite become NaN, as in every quantizer.

    Example:
        >>> import torch
        >>> from quantizers import Identity
        >>> quantizer = Identity(2)
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.5, -2.0]]))
        >>> quantized, indices, loss
        (tensor([[ 0.5000, -2.0000]]), tensor([-1]), tensor(0.))

    Args:
        dim: channels of x.
        code_dim: width of the bottleneck, default `dim`. Where it differs, x is projected in and out.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices [...] (all −1), loss [] (zero).

    Raises: ValueError for a size below 1.
    """

    @checked
    def __init__(self, dim: Size, *, code_dim: Size | None = None, channel_dim: int = -1) -> None:
        super().__init__(dim, 0, code_dim=code_dim, channel_dim=channel_dim)

    @classmethod
    @checked
    def from_options(
        cls, dim: Size, codebook_size: Count | None = None, *, code_dim: Size | None = None, channel_dim: int = -1
    ) -> Self:
        """Build one from the options that every quantizer takes.

        Args: codebook_size: accepted and ignored.
        """
        return cls(dim, code_dim=code_dim, channel_dim=channel_dim)

    @property
    def codebook(self) -> Tensor:
        """Raises ValueError, because there is no codebook."""
        raise ValueError("Identity does not quantize: it has no codebook")

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z = rows.vectors
        return QuantizerOutput(z.clone(), self._encode(z), z.new_zeros(()))

    def _encode(self, z: Tensor) -> Tensor:
        return torch.full(z.shape[:1], NO_CODE, dtype=torch.int64, device=z.device)

    def _decode(self, indices: Tensor) -> Tensor:
        raise ValueError("Identity does not quantize: there is nothing to decode; use its output instead")


register("none", Identity.from_options)
