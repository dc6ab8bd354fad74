"""What every quantizer returns."""

from typing import NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

NO_CODE = -1
"""The index of a vector that is masked or not finite."""


class QuantizerOutput(NamedTuple):
    """The result of a quantizer's forward, the same in training and in evaluation."""

    quantized: Tensor
    """The quantized vectors, with x's shape, dtype and device: zero where masked, NaN where x is not finite."""
    indices: Tensor
    """int64, x's shape without the channel axis. A quantizer with several codebooks adds one axis, last.
    −1 where x is masked or not finite."""
    loss: Tensor
    """0-d, float32 (float64 for float64 input), already weighted: add it to the model's loss. It is infinite,
    never NaN, where its value exceeds the range of float32, such as for vectors beyond 10¹⁹."""


# torch.export writes an output's type under this name.
pytree._register_namedtuple(QuantizerOutput, serialized_type_name="quantizers.QuantizerOutput")
