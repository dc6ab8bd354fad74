"""The base class of regularizers."""

import abc
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.options import checked

Moves = Literal["codes", "both"]


class Regularizer(abc.ABC):
    """A loss on the vectors of a batch and the codes, which a quantizer adds to its own loss.

    A subclass defines `__call__`. It may store numbers, but no parameters or buffers: the quantizer would not
    contain them.

    Args:
        weight: ≥ 0, the weight of the loss.
        moves: "codes" if the loss has a gradient for the codes only, or "both" for vectors and codes. Codes that
            are not a parameter, such as moving averages, get no gradient.

    Raises: ValueError for a weight that is negative or not finite.
    """

    @checked
    def __init__(self, weight: Weight, moves: Moves = "both") -> None:
        self.weight = weight
        self.moves: Moves = moves

    @abc.abstractmethod
    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """Return the weighted loss, 0-d, float32 (float64 for float64 input); zero if no row is valid.

        Args:
            z: [N, D], the vectors; rows that are not valid are zero.
            valid: [N] bool, the rows that count.
            codes: [K, D]. For distance="cosine" and "angle", both z and codes have unit norm.
        """

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in vars(self).items() if name not in ("weight", "moves")]
        return f"{type(self).__name__}({', '.join([repr(self.weight), *options])})"


def check_regularizers(regularizers: Sequence[Regularizer]) -> tuple[Regularizer, ...]:
    """`regularizers` as a tuple. Raises: TypeError unless it is a sequence of Regularizer."""
    if not isinstance(regularizers, Sequence) or not all(isinstance(each, Regularizer) for each in regularizers):
        raise TypeError(
            f"regularizers is {regularizers!r}, expected a sequence of `quantizers.regularizers.Regularizer`"
        )
    return tuple(regularizers)
