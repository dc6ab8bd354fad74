"""What a regularizer is."""

import abc
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.options import checked

Moves = Literal["codes", "both"]


class Regularizer(abc.ABC):
    """A loss on the vectors of a batch and the codes, added to a quantizer's own.

    A subclass defines `__call__`. It holds numbers, not parameters or buffers: those would not be the quantizer's.

    Args:
        weight: ≥ 0, of the loss.
        moves: which of the two the loss has a gradient for: "codes" alone, or "both" vectors and codes. Codes that
            are no parameter, as averages are, get none.

    Raises: ValueError for a weight that is negative or not finite.
    """

    @checked
    def __init__(self, weight: Weight, moves: Moves = "both") -> None:
        self.weight = weight
        self.moves: Moves = moves

    @abc.abstractmethod
    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """The weighted loss, 0-d, float32 (float64 for float64 input); zero where no row is valid.

        Args:
            z: [N, D] vectors, those that are not valid zero. valid: [N] bool, which of them count.
            codes: [K, D]. Of unit norm, as z is, for distance="cosine" and "angle".
        """

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in vars(self).items() if name not in ("weight", "moves")]
        return f"{type(self).__name__}({', '.join([repr(self.weight), *options])})"


def check_regularizers(regularizers: Sequence[Regularizer]) -> tuple[Regularizer, ...]:
    """`regularizers` as a tuple, if it is a sequence of such; else a TypeError that says what came."""
    if not isinstance(regularizers, Sequence) or not all(isinstance(part, Regularizer) for part in regularizers):
        raise TypeError(
            f"regularizers is {regularizers!r}, expected a sequence of `quantizers.regularizers.Regularizer`"
        )
    return tuple(regularizers)
