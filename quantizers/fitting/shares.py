"""The vectors that one rank reads, block by block, with a record of those that are not finite."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import rank_in, rows_of_ranks, total
from quantizers.kernels.common.vectors import are_finite
from quantizers.kernels.common.wide import wide
from quantizers.vectors import Vectors, open_vectors
from quantizers.vectors.parts import Part
from quantizers.vectors.sampling import sample

NAMED = 10  # rows that are not finite, in reports
BATCHES = 32  # that a shuffled pass has at least
RUN = 64  # consecutive rows that a shuffled batch takes together, so that a file is not read row by row
LAST = torch.iinfo(torch.int64).max


class Share:
    """The vectors of this rank. A file is divided among the ranks; other data are this rank's own.

    Args:
        data: what `open_vectors` takes. dim: the expected number of channels.
        group: the ranks that fit together. rows: how many vectors of all ranks a block has.
        device: where ranks exchange tensors.
    """

    def __init__(self, data: Any, dim: int, group: Group, rows: int, device: torch.device) -> None:
        self.vectors: Vectors = open_vectors(data, dim=dim)
        self.rank, self.ranks = rank_in(group), 1 if group is None else dist.get_world_size(group)
        self.group, self.device = group, device
        self.divided = isinstance(data, str | os.PathLike | Vectors)
        self.rows = max(rows, self.ranks)
        self.skipped = 0
        self.skipped_rows: list[int] = []
        self._read = False  # whether all vectors have been read once
        self._sums: list[float] = []  # of each block in the first pass, by which a later pass is recognized

    def total(self) -> int | None:
        """How many vectors a pass of this rank reads, or None."""
        count = self.vectors.count
        if count is None or not self.divided:
            return count
        return -(-count // self.ranks)

    def count_of_all(self) -> int | None:
        """How many vectors a pass of all ranks reads, or None."""
        own = self.vectors.count
        if self.divided:
            return own
        counts = torch.tensor([own is not None, own or 0], dtype=torch.int64, device=self.device)
        known, count = total(self.group, counts)[0].tolist()
        return int(count) if known == self.ranks else None

    def blocks(self) -> Iterator[Tensor]:
        """The finite vectors [n, dim] of this rank, in order.

        Raises: ValueError if a pass yields other vectors than the first one.
        """
        for number, (first, block) in enumerate(self._source()):
            finite = self._finite(block, first)
            self._compare(number, finite)
            yield finite
        self._read = True

    def _source(self) -> Iterator[tuple[int, Tensor]]:
        """The blocks of this rank, and the position of the first row of each."""
        if self.divided:
            yield from Part(self.vectors, self.rank, self.ranks).located_blocks(self.rows)
            return
        first = 0
        for block in self.vectors.blocks(-(-self.rows // self.ranks)):
            yield first, block
            first += len(block)

    def _finite(self, block: Tensor, first: int) -> Tensor:
        if (self._read and not self.skipped) or bool(block.sum().isfinite()):  # a sum keeps NaN and infinity
            return block
        finite = are_finite(block)
        if bool(finite.all()):
            return block
        if not self._read:
            bad = (~finite).nonzero().flatten()
            self.skipped += len(bad)
            self.skipped_rows += (bad[: NAMED - len(self.skipped_rows)] + first).tolist()
        return block[finite]

    def _compare(self, number: int, block: Tensor) -> None:
        """Recognize the block by its first and last vector."""
        found = float(wide(block[[0, -1]]).sum()) if len(block) else 0.0
        if not self._read:
            self._sums.append(found)
        elif number >= len(self._sums) or self._sums[number] != found:
            raise ValueError(
                f"{self.vectors.name} gave other vectors in a later pass, expected the same in the same order; "
                "if it is a data loader, pass shuffle=False"
            )

    def shuffled(self, seed: int) -> Iterator[Tensor]:
        """The finite vectors of this rank in batches of random runs of rows, or in order if the data cannot seek.

        Where the data are divided, the batches of all ranks together are those of one process.
        """
        if not self.vectors.seeks or self.vectors.count is None:
            yield from self.blocks()
            return
        starts = torch.arange(0, self.vectors.count, RUN)
        order = starts[torch.randperm(len(starts), generator=torch.Generator().manual_seed(seed))]
        rows = min(self.rows if self.divided else -(-self.rows // self.ranks), -(-self.vectors.count // BATCHES))
        for runs in torch.split(order, max(1, rows // RUN)):
            positions = (runs.sort().values[:, None] + torch.arange(RUN)).flatten()
            positions = positions[positions < self.vectors.count]
            if self.divided:
                positions = positions.tensor_split(self.ranks)[self.rank]
            block = self.vectors.take(positions)
            yield block[are_finite(block)]

    def sample(self, count: int, seed: int) -> Tensor:
        """`count` vectors of all ranks, without replacement and in random order, the same on all ranks."""
        rank, ranks = (self.rank, self.ranks) if self.divided else (0, 1)
        own_seed = seed if self.divided else seed + 7919 * self.rank
        keys, _, rows = sample(self.vectors, count, own_seed, rank=rank, ranks=ranks)
        if self.group is None:
            return rows
        return _gathered(self.group, keys.to(self.device), rows.to(self.device), count)


def in_step(blocks: Iterator[Tensor], group: Group, dim: int, device: torch.device) -> Iterator[Tensor]:
    """The blocks of this rank, and then empty ones [0, dim], until no rank has another block."""
    if group is None:
        yield from blocks
        return
    while True:
        block = next(blocks, None)
        (remaining,) = total(group, torch.tensor([0 if block is None else 1], device=device))
        if not remaining:
            return
        yield torch.empty(0, dim) if block is None else block


def _gathered(group: dist.ProcessGroup, keys: Tensor, rows: Tensor, count: int) -> Tensor:
    """The rows of all ranks with the `count` smallest keys, in the order of the keys, on all ranks.

    Args: keys: [n] int64 ascending, and rows [n, dim], of this rank.
    """
    ranks = dist.get_world_size(group)
    offered = torch.full((ranks, count), LAST, dtype=torch.int64, device=rows.device)
    offered[rank_in(group), : len(keys)] = keys
    offered = total(group, offered.where(torch.arange(ranks, device=rows.device)[:, None] == rank_in(group), 0))[0]
    order = offered.flatten().argsort(stable=True)[:count]
    order = order[offered.flatten()[order] < LAST]
    mine = order // count == rank_in(group)
    return rows_of_ranks(group, mine, (order % count).where(mine, 0), rows)[0]
