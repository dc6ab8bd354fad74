"""The base class of models of indices, which write indices and read them."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantizers.bitstream.alphabet import Alphabet
from quantizers.bitstream.coder import Integers, Reader, Writer
from quantizers.core.output import NO_CODE

STEPS = 4  # the number of streams of `steps.Encoder`, which only `steps.Decoder` reads
WRITERS = {1: "OwnCounts()", 2: "Counts", 3: "Probabilities", STEPS: "Encoder, which Decoder reads"}


class Model(abc.ABC):
    """A source of the probabilities of indices."""

    number: ClassVar[int]
    """The number that stands for this class in a header."""

    @abc.abstractmethod
    def put(self, writer: Writer, indices: Integers, alphabet: Alphabet) -> None:
        """Write indices [...] of an alphabet; −1 for vectors without a code.

        Raises: ValueError for indices that the model does not fit.
        """

    @abc.abstractmethod
    def take(self, reader: Reader, shape: Sequence[int], alphabet: Alphabet) -> Integers:
        """Read indices of the given shape that `put` wrote.

        Raises: as `put`; BitstreamError for bytes that `put` did not write.
        """


def put_present(writer: Writer, indices: Integers) -> Integers:
    """Write which of the indices [n] are −1, with their share as the probability. Returns: the other indices."""
    present = indices != NO_CODE
    found: Integers = indices[present]
    writer.put_uniform(np.array([len(found)]), len(indices) + 1)
    writer.put(present.astype(np.int64), np.array([len(indices) - len(found), len(found)]))
    return found


def take_present(reader: Reader, count: int) -> NDArray[np.bool_]:
    """Read which of `count` indices are not −1, [count] bool."""
    found = int(reader.take_uniform(1, count + 1)[0])
    present: NDArray[np.bool_] = reader.take(count, np.array([count - found, found])) > 0
    return present
