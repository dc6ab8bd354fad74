"""A model per position: each index has a distribution of its own, as a prior gives it."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantizers.bitstream.alphabet import Alphabet
from quantizers.bitstream.coder import Integers, Reader, Writer
from quantizers.bitstream.model import Model, put_present, take_present
from quantizers.core.output import NO_CODE

UNIT = 2.0**37  # weights of a distribution: their sum is at most 2³⁸, as coder.LARGEST_SUM asks
SUM_TOLERANCE = 0.02  # a softmax in bfloat16 has that
CHUNK = 2**19  # entries that are turned into frequencies at a time; part of the format above 4,096 codes


class Probabilities(Model):
    """The distribution of each index, all of them known before decoding begins.

    Both sides must have the same probabilities to the last bit: the same program, machine and batch. Where they
    differ, `decompress` finds other indices than were written, and raises BitstreamError. They are computed with
    in fixed point of 24 bits, every code at least 2⁻²⁴; −1 costs the entropy of where it stands.

    Args:
        probabilities: [..., K], the indices' shape and one more axis, Σ = 1 within 2 %; any floating dtype.
            Several codebooks must have one K.

    Raises: TypeError for probabilities that are not floating; ValueError, in use, where they do not fit the
    indices or are no distributions.
    """

    number: ClassVar[int] = 3

    def __init__(self, probabilities: Tensor | NDArray[np.floating]) -> None:
        self.probabilities = as_probabilities(probabilities)

    def put(self, writer: Writer, indices: Integers, alphabet: Alphabet) -> None:
        """As Model.put."""
        rows = self._rows(indices.shape, alphabet)
        flat = indices.reshape(-1)
        found = put_present(writer, flat)
        put_probabilities(writer, found, rows[torch.from_numpy(flat != NO_CODE)])

    def take(self, reader: Reader, shape: Sequence[int], alphabet: Alphabet) -> Integers:
        """As Model.take."""
        rows = self._rows(shape, alphabet)
        present = take_present(reader, len(rows))
        indices = np.full(len(rows), NO_CODE, dtype=np.int64)
        indices[present] = take_probabilities(reader, rows[torch.from_numpy(present)])
        return indices.reshape(shape)

    def _rows(self, shape: Sequence[int], alphabet: Alphabet) -> Tensor:
        """The probabilities as [n, K]."""
        sizes = {section.size for section in alphabet.sections}
        if len(sizes) > 1:
            raise ValueError(f"the codebooks have {sorted(sizes)} codes, expected one size for Probabilities")
        expected = (*shape, *sizes)
        if tuple(self.probabilities.shape) != expected:
            raise ValueError(f"probabilities have shape {tuple(self.probabilities.shape)}, expected {expected}")
        return self.probabilities.reshape(-1, expected[-1])


def as_probabilities(probabilities: Tensor | NDArray[np.floating]) -> Tensor:
    """Probabilities as a tensor on the CPU. Raises: TypeError for what is not floating."""
    found = torch.as_tensor(probabilities).detach().cpu()
    if not found.is_floating_point():
        raise TypeError(f"probabilities have dtype {found.dtype}, expected a floating dtype")
    return found


def put_probabilities(writer: Writer, symbols: Integers, probabilities: Tensor) -> None:
    """Symbols [n] in [0, K), each with its probabilities [n, K]."""
    for part in _chunks(probabilities):
        writer.put_rows(symbols[part], _weights(probabilities[part]))


def take_probabilities(reader: Reader, probabilities: Tensor) -> Integers:
    """The symbols [n] that were written with these probabilities [n, K]."""
    parts = [reader.take_rows(_weights(probabilities[part])) for part in _chunks(probabilities)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _weights(probabilities: Tensor) -> Integers:
    """⌈2³⁷ p⌉ of p [n, K]: integers, whose sum does not depend on an order. Their p is at least
    p / (Σ p + K 2⁻³⁷)."""
    shares = probabilities.double()
    sums = shares.sum(-1)
    if not ((shares >= 0).all() and (sums - 1).abs().max() <= SUM_TOLERANCE):  # NaN is neither
        raise ValueError(
            f"probabilities are {float(shares.min()):.4g} at the least and sum to {float(sums.min()):.4g} to "
            f"{float(sums.max()):.4g}, expected distributions: at least 0, and sums of 1"
        )
    weights: Integers = np.ceil(shares.numpy() * UNIT).astype(np.int64)
    return weights


def _chunks(probabilities: Tensor) -> Iterator[slice]:
    count, size = probabilities.shape
    step = max(1, CHUNK // size)
    return (slice(start, start + step) for start in range(0, count, step))
