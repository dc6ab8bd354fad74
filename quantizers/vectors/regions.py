"""Vectors in a region of a file, read with plain reads.

The pages of a memory map that have been read count as resident memory of the process until the system reclaims
them, so that a pass over a large file would look like, and with a limit act like, loading it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from quantizers.vectors.base import PIECE, IndexedVectors, check_positions
from quantizers.vectors.values import check_shape, check_some, from_numpy

Array = np.ndarray[Any, Any]
NEARBY = 2**16  # bytes between two rows that are read rather than skipped


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file opened for reading. Raises: OSError with a sentence, here and for errors inside the `with`."""
    try:
        with open(path, "rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path} is a folder, expected a file") from None
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def read_bytes(file: BinaryIO, offset: int, size: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """`size` bytes from `offset`. Raises: OSError if the file ends before."""
    buffer = np.empty(size, np.uint8)
    view, done = memoryview(buffer.data), 0
    file.seek(offset)
    while done < size:
        got = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise OSError(f"it ends {size - done} bytes before its last vectors, cut off since it was opened")
        done += got
    return buffer


@dataclass(frozen=True)
class Region:
    """An array [rows, channels] in a file: its first byte, and the bytes from one row and channel to the next."""

    path: str
    offset: int
    dtype: "np.dtype[Any]"
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def size(self) -> int:
        """The bytes from the first element to the end of the last."""
        return self._span(*self.shape)

    def _span(self, rows: int, channels: int) -> int:
        return (rows - 1) * self.strides[0] + (channels - 1) * self.strides[1] + self.dtype.itemsize

    def read(self, file: BinaryIO, start: int, stop: int) -> Array:
        """The rows start ≤ position < stop."""
        rows, channels = stop - start, self.shape[1]
        offset, (row_bytes, channel_bytes) = self.offset + start * self.strides[0], self.strides
        if rows and row_bytes == channels * channel_bytes:
            return self._array(read_bytes(file, offset, self._span(rows, channels)), rows, channels)
        values = np.empty((rows, channels), self.dtype)
        if row_bytes < channel_bytes:  # in Fortran's order: channel by channel
            for channel in range(channels if rows else 0):
                raw = read_bytes(file, offset + channel * channel_bytes, self._span(rows, 1))
                values[:, channel] = self._array(raw, rows, 1)[:, 0]
            return values
        step = max(1, PIECE // row_bytes)  # there are bytes to drop between the rows
        for first in range(0, rows, step):
            some = min(step, rows - first)
            raw = read_bytes(file, offset + first * row_bytes, self._span(some, channels))
            values[first : first + some] = self._array(raw, some, channels)
        return values

    def _array(self, raw: "np.ndarray[Any, np.dtype[np.uint8]]", rows: int, channels: int) -> Array:
        array: Array = np.ndarray((rows, channels), self.dtype, raw.data, strides=self.strides)
        return array


class RegionVectors(IndexedVectors):
    """The vectors of a region.

    Args:
        name: what messages call it. region: where it is. convert: makes float32 or float64 of what was read.

    Raises: ValueError for no rows, no channels, or a file that ends before the region; OSError if the file cannot
    be read.
    """

    def __init__(self, name: str, region: Region, convert: Callable[[Array], Tensor] = from_numpy) -> None:
        self.name = name
        self._region, self._convert = region, convert
        self.count, self.dim = check_shape(name, region.shape)
        check_some(name, self.count)
        self.seeks = region.strides[0] >= region.strides[1]
        with opened(region.path) as file:
            missing = region.offset + region.size - os.fstat(file.fileno()).st_size
        if missing > 0:
            raise ValueError(f"{name} is cut off: {missing} bytes are missing at its end")

    def read(self, start: int, stop: int) -> Tensor:
        with opened(self._region.path) as file:
            return self._convert(self._region.read(file, start, stop))

    def take(self, positions: Tensor) -> Tensor:
        if not self.seeks:
            return super().take(positions)
        wanted = check_positions(self, positions).numpy()
        values = np.empty((len(wanted), self.dim), self._region.dtype)
        with opened(self._region.path) as file:
            for first, last in runs(wanted, self._region.strides[0]):
                start, stop = int(wanted[first]), int(wanted[last - 1]) + 1
                values[first:last] = self._region.read(file, start, stop)[wanted[first:last] - start]
        return self._convert(values)


def runs(positions: Array, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Slices of ascending positions that one read covers: neighbours, of at most `PIECE` bytes."""
    if not len(positions):
        return
    far = np.diff(positions) * row_bytes > NEARBY
    full = np.diff(positions // max(1, PIECE // row_bytes)) != 0
    ends = [*(np.flatnonzero(far | full) + 1).tolist(), len(positions)]
    yield from zip([0, *ends], ends, strict=False)
