"""A model with a separate distribution for each index, such as a prior gives."""

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

UNIT = 2.0**37  # scale of the weights: their sum is at most 2³⁸, which is coder.LARGEST_SUM
SUM_TOLERANCE = 0.02  # the error of a softmax in bfloat16
CHUNK = 2**19  # entries converted to frequencies at a time; part of the format above 4,096 codes


class Probabilities(Model):
    """A model with the distribution of each index, for distributions that are known before decoding.

    Both sides must have the same probabilities to the last bit: the same program, machine and batch. If they
    differ, `decompress` decodes other indices than those written, and raises BitstreamError. The probabilities
    are rounded to fixed point with 24 bits, at least 2⁻²⁴ for every code. Indices of −1 cost the entropy of their
    positions.

        >>> import torch
        >>> from quantizers.bitstream import Probabilities, compress, decompress
        >>> model = Probabilities(torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
        >>> decompress(compress(torch.tensor([0, 1]), 2, model), model)
        tensor([0, 1])

    Args:
        probabilities: [..., K], the shape of the indices and one more axis, with sums of 1 within 2 %; any
            floating dtype. If there are several codebooks, all must have the same K.

    Raises: TypeError for probabilities that are not floating-point numbers. ValueError, when the model is used,
        for probabilities that do not fit the indices or are not distributions.
    """

    number: ClassVar[int] = 3

    def __init__(self, probabilities: Tensor | NDArray[np.floating]) -> None:
        self.probabilities = as_probabilities(probabilities)

    def put(self, writer: Writer, indices: Integers, alphabet: Alphabet) -> None:
        """See Model.put."""
        rows = self._rows(indices.shape, alphabet)
        flat = indices.reshape(-1)
        found = put_present(writer, flat)
        put_probabilities(writer, found, rows[torch.from_numpy(flat != NO_CODE)])

    def take(self, reader: Reader, shape: Sequence[int], alphabet: Alphabet) -> Integers:
        """See Model.take."""
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
    """Probabilities as a tensor on the CPU. Raises: TypeError for a dtype that is not floating."""
    found = torch.as_tensor(probabilities).detach().cpu()
    if not found.is_floating_point():
        raise TypeError(f"probabilities have dtype {found.dtype}, expected a floating dtype")
    return found


def put_probabilities(writer: Writer, symbols: Integers, probabilities: Tensor) -> None:
    """Write symbols [n] in [0, K), each with its own row of probabilities [n, K]."""
    for chunk in _chunks(probabilities):
        writer.put_rows(symbols[chunk], _weights(probabilities[chunk]))


def take_probabilities(reader: Reader, probabilities: Tensor) -> Integers:
    """Read the symbols [n] that were written with these probabilities [n, K]."""
    chunks = [reader.take_rows(_weights(probabilities[chunk])) for chunk in _chunks(probabilities)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *chunks])


def _weights(probabilities: Tensor) -> Integers:
    """Integer weights ⌈2³⁷ p⌉ of p [n, K], whose sum does not depend on the order of summation.

    The probabilities that they stand for are at least p / (Σ p + K 2⁻³⁷).
    """
    shares = probabilities.double()
    sums = shares.sum(-1)
    if not ((shares >= 0).all() and (sums - 1).abs().max() <= SUM_TOLERANCE):  # false for NaN
        raise ValueError(
            f"probabilities have a minimum of {float(shares.min()):.4g} and sums from {float(sums.min()):.4g} to "
            f"{float(sums.max()):.4g}, expected distributions: at least 0, with sums of 1"
        )
    weights: Integers = np.ceil(shares.numpy() * UNIT).astype(np.int64)
    return weights


def _chunks(probabilities: Tensor) -> Iterator[slice]:
    count, size = probabilities.shape
    step = max(1, CHUNK // size)
    return (slice(start, start + step) for start in range(0, count, step))
