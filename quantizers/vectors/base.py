"""The interface of all sources of vectors, and what those with positions share."""

import abc
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, shown
from quantizers.vectors.values import check_some

PIECE = 2**22  # bytes that a source reads at a time where nobody asked for a number of rows


class Vectors(abc.ABC):
    """Vectors [count, dim] in a fixed order, which can be read any number of times and need not fit in memory.

    Values are float32, or float64 where the source has float64. Rows that are not finite are returned as they are.
    A block may share memory with its source: do not write to it.

    Attributes:
        name: what messages call the source: its path, or "the tensor".
        dim: the number of channels.
        count: the number of rows; None for a stream that has not been read to its end.
        seeks: whether `take` is cheaper than a pass over all rows.
    """

    name: str
    dim: int
    count: int | None
    seeks: bool = False

    def blocks(self, rows: int) -> Iterator[Tensor]:
        """Read all vectors in order: blocks [rows, dim], the last of which may be shorter.

        Raises: ValueError for vectors that contradict the shape of those before; OSError if a file cannot be read.
        """
        return self._counted(regroup(self._pieces(rows), check_at_least("rows", rows, 1)))

    def take(self, positions: Tensor) -> Tensor:
        """Return the rows at ascending positions, int64 [n], as [n, dim].

        Raises: ValueError for positions that do not ascend; IndexError for those outside of the source.
        """
        positions = check_positions(self, positions)
        taken, first = [], 0
        rows = piece_rows(self.dim)
        for block in self.blocks(rows):
            inside = positions[(positions >= first) & (positions < first + len(block))]
            taken.append(block[(inside - first).to(block.device)].clone())
            first += len(block)
            if not len(positions) or positions[-1] < first:
                return torch.cat(taken)
        raise IndexError(f"positions contains {int(positions[-1])}, but {self.name} has {first} vectors")

    @abc.abstractmethod
    def _pieces(self, rows: int) -> Iterator[Tensor]:
        """All vectors in order, [any number, dim]; pieces of `rows` rows save a copy."""

    def _counted(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        found = 0
        for block in blocks:
            found += len(block)
            yield block
        check_some(self.name, found)
        if self.count is None:
            self.count = found
        elif found != self.count:
            raise ValueError(
                f"{self.name} gave {found} vectors in this pass, expected {self.count}: "
                "every pass must give the same vectors in the same order"
            )


class IndexedVectors(Vectors):
    """Vectors of which any range can be read."""

    count: int
    seeks = True

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """The rows start ≤ position < stop, [stop − start, dim]; both lie within the source."""

    def _pieces(self, rows: int) -> Iterator[Tensor]:
        for start in range(0, self.count, rows):
            yield self.read(start, min(start + rows, self.count))


def regroup(pieces: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
    """Divide the rows of all pieces into blocks of `rows` rows; the last one has what is left, at least one."""
    held: list[Tensor] = []
    missing = rows
    for piece in pieces:
        while len(piece) >= missing:
            head, piece = piece[:missing], piece[missing:]
            yield _joined([*held, head])
            held, missing = [], rows
        if len(piece):
            held.append(piece)
            missing -= len(piece)
    if held:
        yield _joined(held)


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def piece_rows(dim: int) -> int:
    """How many float64 rows fit into a piece, at least one."""
    return max(1, PIECE // (8 * dim))


def check_positions(vectors: Vectors, positions: Tensor) -> Tensor:
    """`positions` on the CPU. Raises: TypeError, ValueError or IndexError unless `take` can accept them."""
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64 or positions.dim() != 1:
        raise TypeError(f"positions is {shown(positions)}, expected an int64 tensor with one axis")
    positions = positions.cpu()
    if (positions.diff() < 0).any():
        raise ValueError("positions do not ascend; sort them first")
    if len(positions):
        first, last = int(positions[0]), int(positions[-1])
        if first < 0 or (vectors.count is not None and last >= vectors.count):
            wrong = first if first < 0 else last
            raise IndexError(f"positions contains {wrong}, but {vectors.name} has {vectors.count} vectors")
    return positions
