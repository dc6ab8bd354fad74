"""Coding step by step, for priors that need what was decoded before: PixelCNN, transformers."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantizers.bitstream.alphabet import Alphabet
from quantizers.bitstream.codec import MOST_ELEMENTS, digest
from quantizers.bitstream.coder import UNREADABLE, Reader, Writer
from quantizers.bitstream.header import BitstreamError, Header, check_axes, read_stream, write_stream
from quantizers.bitstream.model import STEPS, WRITERS
from quantizers.bitstream.positions import as_probabilities, put_probabilities, take_probabilities
from quantizers.core.arguments.checks import check_at_least


class Encoder:
    """Indices in blocks, in the order in which they will be decoded.

    A block is what a prior predicts at once: the next position of each image of a batch.

        encoder = Encoder(indices.shape, codebook_size)          # indices [B, T]
        for t in range(T):
            encoder.put(indices[:, t], prior(indices[:, :t]))    # probabilities [B, K]
        data = encoder.finish()

    Args:
        shape: that of all indices together; it stands in the stream, for the decoder, and says how many there are.
        codebook_size: K.

    Raises: ImportError without constriction; ValueError for a shape with a negative size, or K outside [1, 2²⁴].
    """

    def __init__(self, shape: Sequence[int], codebook_size: int) -> None:
        self.shape = check_axes(tuple(check_at_least("a size of the shape", size, 0) for size in shape))
        self.alphabet = Alphabet.codes(codebook_size)
        self._left = math.prod(self.shape)
        self._digest = 0
        self._writer = Writer()

    def put(self, indices: Tensor, probabilities: Tensor | NDArray[np.floating]) -> None:
        """Write the next indices [n], each with its distribution over the codes [n, K].

        An index of −1 has no code: leave out positions that are masked, on both sides, and of `shape` too.

        Raises: TypeError or ValueError where they do not fit or are more than the shape has; IndexError for an
        index outside [0, K).
        """
        rows = _check_rows(probabilities, self.alphabet, self._left)
        self.alphabet.check(indices)
        if tuple(indices.shape) != tuple(rows.shape[:1]):
            raise ValueError(f"indices have shape {tuple(indices.shape)}, expected {tuple(rows.shape[:1])}")
        if indices.numel() and indices.min() < 0:
            raise IndexError("indices hold −1, which has no code: leave such positions out")
        found = indices.detach().cpu().long().numpy()
        put_probabilities(self._writer, found, rows)
        self._left -= len(found)
        self._digest = digest(found, self._digest)

    def finish(self) -> bytes:
        """The stream. Raises: ValueError before all indices of the shape are written."""
        if self._left:
            raise ValueError(f"{self._left} indices of shape {self.shape} are not yet written")
        return write_stream(Header(STEPS, self.shape, self.alphabet, self._digest), self._writer.finish())


class Decoder:
    """The indices of an Encoder, in the same blocks.

        decoder = Decoder(data)
        indices = torch.zeros(decoder.shape, dtype=torch.int64)
        for t in range(T):
            indices[:, t] = decoder.take(prior(indices[:, :t]))

    The probabilities must be those of the encoder to the last bit: the same program, machine and batch. With
    others the indices are wrong; that is found after the last of them, by a checksum.

    Args: data: of `Encoder.finish`. max_elements: see `decompress`.

    Raises: as `decompress`.
    """

    def __init__(self, data: bytes, *, max_elements: int = MOST_ELEMENTS) -> None:
        header, payload = read_stream(data, max_elements)
        if header.model != STEPS:
            name = WRITERS.get(header.model, f"a model of number {header.model}")
            raise BitstreamError(f"data was written with {name}, not by an Encoder: decompress reads it")
        self.shape = header.shape
        self.codebook_size = header.alphabet.sections[0].size
        self._header = header
        self._left = math.prod(header.shape)
        self._digest = 0
        self._reader = Reader(payload)

    def take(self, probabilities: Tensor | NDArray[np.floating]) -> Tensor:
        """The next indices [n], int64, given the distribution of each, [n, K].

        Raises: ValueError or TypeError where the probabilities do not fit or are more than there are indices;
        BitstreamError where the coder finds that they are not those of the encoder, at the latest with the last.
        """
        rows = _check_rows(probabilities, self._header.alphabet, self._left)
        found = take_probabilities(self._reader, rows)
        self._left -= len(found)
        self._digest = digest(found, self._digest)
        if not self._left and self._digest != self._header.digest:
            raise BitstreamError(UNREADABLE)
        return torch.from_numpy(found)


def _check_rows(probabilities: Tensor | NDArray[np.floating], alphabet: Alphabet, left: int) -> Tensor:
    rows = as_probabilities(probabilities)
    size = alphabet.sections[0].size
    if rows.ndim != 2 or rows.shape[1] != size or len(rows) > left:
        raise ValueError(
            f"probabilities have shape {tuple(rows.shape)}, expected [n, {size}], n at most {left}, as many as "
            "indices are left"
        )
    return rows
