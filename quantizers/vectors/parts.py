"""The share of one rank: a slice of every block."""

from collections.abc import Iterator

from torch import Tensor

from quantizers.core.arguments.checks import check_at_least
from quantizers.vectors.base import IndexedVectors, Vectors


class Part:
    """The vectors that one of several ranks reads: each block in turn is divided into `ranks` contiguous slices.

    All ranks get the same number of slices, so that they can sum their statistics after each block; a slice may be
    empty. Together the slices are the block that one process would read. Where any range can be read, a rank reads
    only its slices; otherwise it reads everything and keeps them.

    Args:
        vectors: the same source on every rank. rank: the number of this rank. ranks: how many there are.

    Raises: ValueError unless 0 ≤ rank < ranks.
    """

    def __init__(self, vectors: Vectors, rank: int = 0, ranks: int = 1) -> None:
        self.vectors = vectors
        self.ranks = check_at_least("ranks", ranks, 1)
        self.rank = check_at_least("rank", rank, 0)
        if self.rank >= self.ranks:
            raise ValueError(f"rank is {rank}, expected a number below ranks={ranks}")

    def blocks(self, rows: int) -> Iterator[Tensor]:
        """This rank's slice [n, dim] of each block of `rows` vectors. Raises: as `Vectors.blocks`."""
        for _, block in self.located_blocks(rows):
            yield block

    def located_blocks(self, rows: int) -> Iterator[tuple[int, Tensor]]:
        """As `blocks`, and the position of each slice's first row among all vectors."""
        rows = check_at_least("rows", rows, 1)
        if isinstance(self.vectors, IndexedVectors):
            for start, stop in self.slices(self.vectors.count, rows):
                yield start, self.vectors.read(start, stop)
            return
        start = 0
        for block in self.vectors.blocks(rows):
            first, last = self._slice(len(block))
            yield start + first, block[first:last]
            start += len(block)

    def slices(self, count: int, rows: int) -> Iterator[tuple[int, int]]:
        """The positions start ≤ position < stop of this rank's slices, of `count` vectors in blocks of `rows`."""
        for start in range(0, count, rows):
            first, last = self._slice(min(rows, count - start))
            yield start + first, start + last

    def _slice(self, size: int) -> tuple[int, int]:
        return size * self.rank // self.ranks, size * (self.rank + 1) // self.ranks
