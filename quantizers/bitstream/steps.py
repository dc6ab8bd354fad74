"""Coding step by step, for priors that depend on the indices decoded before, such as PixelCNN or transformers."""

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
    """Writes indices in blocks, in the order in which they will be decoded.

    A block consists of the indices that a prior predicts at once, such as the next position of each image in a
    batch. See `Decoder` for the other side.

        encoder = Encoder(indices.shape, codebook_size)          # indices [B, T]
        for t in range(T):
            encoder.put(indices[:, t], prior(indices[:, :t]))    # probabilities [B, K]
        data = encoder.finish()

    Args:
        shape: the shape of all indices together. The stream contains it, for the decoder.
        codebook_size: K, the number of codes.

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

        An index of −1 has no code. Leave out masked positions on both sides, and in `shape`.

        Raises: TypeError or ValueError for arguments that do not fit, or more indices than `shape` has; IndexError
            for an index outside [0, K).
        """
        rows = _check_rows(probabilities, self.alphabet, self._left)
        self.alphabet.check(indices)
        if tuple(indices.shape) != tuple(rows.shape[:1]):
            raise ValueError(f"indices have shape {tuple(indices.shape)}, expected {tuple(rows.shape[:1])}")
        if indices.numel() and indices.min() < 0:
            raise IndexError("indices contain −1, which has no code: leave such positions out")
        found = indices.detach().cpu().long().numpy()
        put_probabilities(self._writer, found, rows)
        self._left -= len(found)
        self._digest = digest(found, self._digest)

    def finish(self) -> bytes:
        """Return the stream. Raises: ValueError before all indices of the shape are written."""
        if self._left:
            raise ValueError(f"{self._left} indices of shape {self.shape} have not been written yet")
        return write_stream(Header(STEPS, self.shape, self.alphabet, self._digest), self._writer.finish())


class Decoder:
    """Reads the indices that an Encoder wrote, in the same blocks.

        >>> import torch
        >>> from quantizers.bitstream import Decoder, Encoder
        >>> prior = torch.tensor([[0.5, 0.25, 0.25]])
        >>> encoder = Encoder([2], codebook_size=3)
        >>> encoder.put(torch.tensor([2]), prior)
        >>> encoder.put(torch.tensor([0]), prior)
        >>> decoder = Decoder(encoder.finish())
        >>> decoder.take(prior), decoder.take(prior)
        (tensor([2]), tensor([0]))

    With a prior that depends on the indices before:

        decoder = Decoder(data)
        indices = torch.zeros(decoder.shape, dtype=torch.int64)
        for t in range(T):
            indices[:, t] = decoder.take(prior(indices[:, :t]))

    The probabilities must be those of the encoder to the last bit: the same program, machine and batch. With
    other probabilities the indices are wrong, which a checksum detects after the last of them at the latest.

    Args:
        data: the stream that `Encoder.finish` returned.
        max_elements: see `decompress`.

    Raises: as `decompress`.
    """

    def __init__(self, data: bytes, *, max_elements: int = MOST_ELEMENTS) -> None:
        header, payload = read_stream(data, max_elements)
        if header.model != STEPS:
            name = WRITERS.get(header.model, f"model number {header.model}")
            raise BitstreamError(f"data was written with {name}, not by an Encoder; use decompress to read it")
        self.shape = header.shape
        self.codebook_size = header.alphabet.sections[0].size
        self._header = header
        self._left = math.prod(header.shape)
        self._digest = 0
        self._reader = Reader(payload)

    def take(self, probabilities: Tensor | NDArray[np.floating]) -> Tensor:
        """Read the next indices [n], int64, given the distribution of each of them, [n, K].

        Raises: ValueError or TypeError for probabilities that do not fit, or of more indices than are left;
            BitstreamError if the probabilities are not those of the encoder, which is detected with the last index
            at the latest.
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
            f"probabilities have shape {tuple(rows.shape)}, expected [n, {size}], n at most {left}, the number "
            "of indices that are left"
        )
    return rows
