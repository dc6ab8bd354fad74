"""One table to fit, and everything that a method needs for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import of_first_rank, rank_in
from quantizers.fitting.journal import Journal
from quantizers.fitting.tables import Table


@dataclass(frozen=True)
class Task:
    """One table, the vectors that reach it as its search compares them, and where a method records its passes."""

    table: Table
    number: int
    """Of the table in the fit, from 0."""
    sample: Tensor
    """[S, D], the same vectors in the same random order on all ranks."""
    blocks: Callable[[Tensor], Iterator[Tensor]]
    """This rank's vectors in order, in blocks [n, D]; called with the codes [K, D] that the table then has."""
    batches: Callable[[int], Iterator[Tensor]] | None
    """This rank's part of random batches in an epoch; the same number on all ranks. None for a table with
    several places."""
    total: int | None
    """How many vectors a pass reads on this rank; None while it is unknown."""
    count: int | None
    """How many vectors a pass reads on all ranks; None while it is unknown."""
    group: Group
    journal: Journal
    seed: int
    prepared: bool = False
    """Whether the table has codes to start from, since a rotation around it was fitted together with them."""

    def draws(self, *purpose: int) -> torch.Generator:
        """A generator on the CPU for one purpose, in the same state on all ranks and after a resumption."""
        seed = self.seed
        for number in (self.number, *purpose):
            seed = (seed * 1_000_003 + number + 1) % 2**62
        return torch.Generator("cpu").manual_seed(seed)

    def own_sample(self, count: int) -> Tensor:
        """This rank's part of the first vectors of the sample."""
        if self.group is None:
            return self.sample[:count]
        ranks, rank = dist.get_world_size(self.group), rank_in(self.group)
        return self.sample[count * rank // ranks : count * (rank + 1) // ranks]

    @property
    def movable(self) -> Tensor:
        """Which codes a method may move, bool [K]."""
        fixed = self.table.fixed
        if fixed is None:
            return torch.ones(self.table.size, dtype=torch.bool, device=self.sample.device)
        return ~fixed

    def of_first_rank(self, codes: Tensor) -> Tensor:
        """The codes that the first rank computed, so that all ranks have the same bits."""
        return of_first_rank(self.group, codes)
