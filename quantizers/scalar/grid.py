"""An implicit codebook: a grid with a few levels per channel, whose index is a number in mixed radix."""

import abc
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Level, Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.read_only import read_only
from quantizers.kernels.common.vectors import integers

LARGEST_TABLE = 2**24  # values in a codebook that is built on demand: 64 MiB


class GridQuantizer(RowQuantizer):
    """The codes are all combinations of L_i levels in channel i; index = Σ digit_i · Π_{j<i} L_j.

    There is no table and no state. A subclass defines which level a vector gets in each channel (`_quantize`,
    `_encode`), and which value a level has (`_values`).

    Args:
        dim: channels of x.
        levels: L_i ≥ 2 for each channel of the code; their product, the codebook size, is at most 2⁶³.
        channel_dim: axis of x's channels.

    Raises: ValueError for empty levels, a level outside [2, largest_level], a product above 2⁶³.
    """

    largest_level: ClassVar[int] = 2**24
    """float32 distinguishes no more values."""

    @checked
    def __init__(self, dim: Size, levels: Sequence[Level], *, channel_dim: int) -> None:
        self.level_counts = tuple(levels)
        size = math.prod(self.level_counts)
        if not self.level_counts:
            raise ValueError("levels is empty, expected a level count of at least 2 for each channel")
        if max(self.level_counts) > self.largest_level:
            raise ValueError(f"levels holds {max(self.level_counts)}, expected at most {self.largest_level}")
        if size > 2**63:
            raise ValueError(f"levels {self.level_counts} give {size} codes, more than 2**63, int64's range")
        super().__init__(dim, size, code_dim=len(self.level_counts), channel_dim=channel_dim)
        self.digit_weights = tuple(itertools.accumulate(self.level_counts[:-1], operator.mul, initial=1))

    @abc.abstractmethod
    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        """The values [..., d] of digits 0 … L_i − 1, int64 [..., d]."""

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"levels": list(self.level_counts)}

    def _levels(self, like: Tensor) -> Tensor:
        """L_i, [d] int64, on the device of `like`."""
        return integers(self.level_counts, like.device)

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim], built at each call.

        Raises: ValueError for a codebook of more than 2²⁴ values.
        """
        if self.codebook_size * self.code_dim > LARGEST_TABLE:
            raise ValueError(
                f"the codebook has {self.codebook_size} codes: too large to build; decode the indices that you "
                "need instead"
            )
        return read_only(self._decode(torch.arange(self.codebook_size, device=self._device)))

    def _index(self, digits: Tensor) -> Tensor:
        """The index [...] of digits [..., d]."""
        return (digits * integers(self.digit_weights, digits.device)).sum(-1)

    def _decode(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // integers(self.digit_weights, indices.device) % self._levels(indices)
        return self._values(digits, self._dtype)


def gradient_in_repr(gradient: Gradient) -> str:
    """Format a gradient as `, gradient=...`; empty for the default, "straight_through"."""
    name = name_of(gradient)
    return "" if name == "straight_through" else f", gradient={name!r}"


def name_of(gradient: Gradient) -> str:
    """The name of a gradient function, for a repr."""
    return getattr(gradient, "__name__", type(gradient).__name__)
