"""A base for contracts whose models set the dtype of what their quantizer returns."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from typing_extensions import Self

from quantizers.adapters.bases.adapter import Adapter
from quantizers.core.base import Quantizer


class GivenDtypeAdapter(Adapter):
    """Has the original's `dtype`, to which its models assign, and which follows no cast of the module."""

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        super().__init__(quantizer, original)
        self.dtype = getattr(original, "dtype", self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        dtype = self.dtype
        super()._apply(fn, recurse)
        self.dtype = dtype
        return self
