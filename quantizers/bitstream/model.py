"""What a model of indices is: it writes them, and reads them back."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantizers.bitstream.alphabet import Alphabet
from quantizers.bitstream.coder import Integers, Reader, Writer
from quantizers.core.output import NO_CODE

STEPS = 4  # the number of `steps.Encoder`, whose streams only its Decoder reads
WRITERS = {1: "OwnCounts()", 2: "Counts", 3: "Probabilities", STEPS: "Encoder, which Decoder reads"}


class Model(abc.ABC):
    """Where the probabilities of indices come from."""

    number: ClassVar[int]
    """What a header calls it."""

    @abc.abstractmethod
    def put(self, writer: Writer, indices: Integers, alphabet: Alphabet) -> None:
        """Write indices [...] of an alphabet; −1 for what has no code.

        Raises: ValueError where the model is not one of such indices.
        """

    @abc.abstractmethod
    def take(self, reader: Reader, shape: Sequence[int], alphabet: Alphabet) -> Integers:
        """The indices that were written, of that shape.

        Raises: as `put`; BitstreamError.
        """


def put_present(writer: Writer, indices: Integers) -> Integers:
    """Write which of the indices [n] are −1, as coins of their share; returns the others."""
    present = indices != NO_CODE
    found: Integers = indices[present]
    writer.put_uniform(np.array([len(found)]), len(indices) + 1)
    writer.put(present.astype(np.int64), np.array([len(indices) - len(found), len(found)]))
    return found


def take_present(reader: Reader, count: int) -> NDArray[np.bool_]:
    """Which of `count` indices are not −1."""
    found = int(reader.take_uniform(1, count + 1)[0])
    present: NDArray[np.bool_] = reader.take(count, np.array([count - found, found])) > 0
    return present
