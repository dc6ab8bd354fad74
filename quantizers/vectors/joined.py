"""Vectors of several files, one after the other."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from quantizers.vectors.base import IndexedVectors, Vectors, check_positions
from quantizers.vectors.values import check_dim


def join(parts: Sequence[Vectors]) -> Vectors:
    """All vectors of the parts, in order. Any range can be read if that holds for all parts.

    Raises: ValueError for parts of different widths; TypeError for float32 in one and float64 in another, at once
    or when a pass gets there.
    """
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        check_dim(part.name, part.dim, parts[0].dim)
    indexed = [part for part in parts if isinstance(part, IndexedVectors)]
    return JoinedRanges(indexed) if len(indexed) == len(parts) else JoinedVectors(parts)


class JoinedVectors(Vectors):
    """The vectors of all parts, read in a pass."""

    def __init__(self, parts: Sequence[Vectors]) -> None:
        self._parts = parts
        self.name, self.dim = _name(parts), parts[0].dim
        counts = [part.count for part in parts if part.count is not None]
        self.count = sum(counts) if len(counts) == len(parts) else None

    def _pieces(self, rows: int) -> Iterator[Tensor]:
        dtype = None
        for part in self._parts:
            for block in part.blocks(rows):
                dtype = dtype or block.dtype
                _check_dtype(part, block, dtype)
                yield block


class JoinedRanges(IndexedVectors):
    """The vectors of parts of which any range can be read."""

    def __init__(self, parts: Sequence[IndexedVectors]) -> None:
        self._parts = parts
        self.name, self.dim = _name(parts), parts[0].dim
        self.seeks = all(part.seeks for part in parts)
        self._starts = [0, *accumulate(part.count for part in parts)]
        self.count = self._starts[-1]
        for part in parts:
            _check_dtype(part, part.read(0, 0), parts[0].read(0, 0).dtype)

    def read(self, start: int, stop: int) -> Tensor:
        if start == stop:
            return self._parts[0].read(0, 0)
        pieces = [
            part.read(max(start - first, 0), min(stop - first, part.count))
            for part, first in zip(self._parts, self._starts, strict=False)
            if start < first + part.count and first < stop
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def take(self, positions: Tensor) -> Tensor:
        positions = check_positions(self, positions)
        ends = torch.searchsorted(positions, torch.tensor(self._starts[1:])).tolist()
        return torch.cat(
            [
                part.take(positions[begin:end] - first)
                for part, first, begin, end in zip(self._parts, self._starts, [0, *ends], ends, strict=False)
            ]
        )


def _name(parts: Sequence[Vectors]) -> str:
    return f"the {len(parts)} files from {parts[0].name} to {parts[-1].name}"


def _check_dtype(part: Vectors, block: Tensor, dtype: torch.dtype) -> None:
    if block.dtype != dtype:
        raise TypeError(f"{part.name} has values of {block.dtype}, expected {dtype} as in the first file")
