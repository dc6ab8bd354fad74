"""The format of a stream: what a decoder must know, and checksums to detect damage."""

import math
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from quantizers.bitstream.alphabet import Alphabet, Section

MAGIC = b"\x89QTC"  # no text begins with this byte
VERSION = 1
MOST_AXES = 64
CHANNEL_COST = 2**10  # the fixed cost of a channel, in elements that take the same time
PREFIX = len(MAGIC) + 1 + 4  # magic, version, CRC-32 of all that follows


class BitstreamError(ValueError):
    """The bytes are not a complete stream of this library, or not one that this model can read."""


class Header(NamedTuple):
    """The data before the payload.

    Bytes: magic (4), version (1), CRC-32 of the rest (4); then, as varints of seven bits a byte, model, number of
    axes, axes, 1 if the last axis enumerates codebooks, number of runs of equal sections, and for each run its
    length, the sections' width, number of levels and levels; the digest (4); the payload, in words of four bytes.
    Integers of fixed width are little-endian.
    """

    model: int
    """The number of the kind of model that the probabilities come from."""
    shape: tuple[int, ...]
    """The shape of the indices."""
    alphabet: Alphabet
    digest: int
    """CRC-32 of the indices as little-endian int64, which shows whether the right model decoded them."""


def write_stream(header: Header, payload: bytes) -> bytes:
    """Join a header and a payload, which is a whole number of 32-bit words, to a stream."""
    runs = [(section, len(list(run))) for section, run in groupby(header.alphabet.sections)]
    numbers = [header.model, len(header.shape), *header.shape, int(header.alphabet.composed), len(runs)]
    for section, length in runs:
        numbers += [length, section.width, len(section.levels), *section.levels]
    body = b"".join(map(_varint, numbers)) + header.digest.to_bytes(4, "little")
    body += payload
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def check_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, if a header can contain it. Raises: ValueError for more than 64 axes."""
    if len(shape) > MOST_AXES:
        raise ValueError(f"indices have {len(shape)} axes, expected at most {MOST_AXES}")
    return shape


def read_stream(data: bytes | bytearray | memoryview, max_elements: int) -> tuple[Header, bytes]:
    """Split a stream into its header and its payload.

    Nothing is allocated for the indices. A header that needs more than `max_elements`, digits of indices and
    entries of tables, is refused.

    Raises: TypeError for data that is not bytes; BitstreamError for bytes that are not a complete stream.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data is a {type(data).__name__}, expected bytes")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise BitstreamError(f"data begins with {data[:4]!r}, expected {MAGIC!r}: it is not a stream of compress")
    if len(data) < PREFIX:
        raise BitstreamError(
            f"data has {len(data)} bytes, fewer than the {PREFIX} bytes of a header: it is truncated"
        )
    if data[len(MAGIC)] != VERSION:
        raise BitstreamError(f"data has version {data[len(MAGIC)]} of the format, expected {VERSION}")
    if zlib.crc32(data[PREFIX:]) != int.from_bytes(data[PREFIX - 4 : PREFIX], "little"):
        raise BitstreamError("data does not match its checksum: it is truncated or corrupted")
    return _read_body(data[PREFIX:], max_elements)


def _read_body(body: bytes, max_elements: int) -> tuple[Header, bytes]:
    """Split what follows the checksum. Nothing here is trusted, since a checksum can be forged."""
    numbers = _Numbers(body)
    model = next(numbers)
    axes = next(numbers)
    if axes > MOST_AXES:
        raise BitstreamError(f"data has indices of {axes} axes, expected at most {MOST_AXES}")
    shape = tuple(next(numbers) for _ in range(axes))
    composed = bool(next(numbers))
    runs = [
        (next(numbers), next(numbers), tuple(next(numbers) for _ in range(next(numbers))))
        for _ in range(next(numbers))
    ]
    alphabet = _alphabet(shape, runs, composed, max_elements)
    digest = int.from_bytes(numbers.read(4), "little")
    payload = body[numbers.position :]
    if len(payload) % 4:
        raise BitstreamError(f"data has a payload of {len(payload)} bytes, expected a multiple of 4")
    return Header(model, shape, alphabet, digest), payload


def _alphabet(
    shape: tuple[int, ...], runs: Sequence[tuple[int, int, tuple[int, ...]]], composed: bool, max_elements: int
) -> Alphabet:
    """The alphabet of runs (length, width, levels). Raises: BitstreamError if it is too large or invalid."""
    rows = math.prod(
        max(size, 1) for size in (shape[:-1] if composed else shape)
    )  # torch computes this product, even with zeros
    work = sum(
        length * (len(levels) + 1) * (max(width, 1) * rows + CHANNEL_COST) + length * sum(levels)
        for length, width, levels in runs
    )
    if work > max_elements:
        raise BitstreamError(
            f"data has {work} elements, digits of indices and entries of tables, more than "
            f"max_elements={max_elements}: pass a larger number if you trust the data"
        )
    try:
        sections = [Section(levels, width) for length, width, levels in runs for _ in range(length)]
        alphabet = Alphabet(tuple(sections), composed)
        alphabet.check_shape(shape)
    except ValueError as error:
        raise BitstreamError(f"data has a header that contradicts itself: {error}") from None
    return alphabet


class _Numbers(Iterator[int]):
    """Iterates over the varints of a header."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.position = 0

    def __next__(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.read(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise BitstreamError("data has a number of more than 63 bits in its header")

    def read(self, count: int) -> bytes:
        """Read the next `count` bytes."""
        found = self._body[self.position : self.position + count]
        if len(found) < count:
            raise BitstreamError("data ends within its header")
        self.position += count
        return found


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
