"""Free IDs for items, as near to their embeddings as there are any left."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.item_ids.acceptance import accept
from quantizers.item_ids.groups import group_sizes, shared_group_numbers
from quantizers.item_ids.levels import Levels
from quantizers.kernels.k_nearest.operation import k_nearest_codes

ENTRIES = 2**22
"""Distances that are held at a time, unless a single prefix has more."""


class Request(NamedTuple):
    """Items that need a code at one level."""

    x: Tensor
    """Embeddings [n, D]."""
    prefixes: Tensor
    """The codes before this level, int64 [n, level]."""
    groups: Tensor
    """The number of each item's prefix, int64 [n], from 0 to G − 1."""
    room: Tensor
    """How many more items each code of each prefix takes, int64 [G, K]."""


Choose = Callable[[Levels, Request], Tensor]
"""Returns the codes of the items of a request, int64 [n], and −1 for those that get none."""


class Placing:
    """Gives free IDs to items, and keeps account of those that are taken.

    Args:
        levels: of the IDs.
        rows: returns the embeddings [n, D] of items, int64 positions [n].
        codes: the nearest codes of each item, int64 [N, levels], which `place` overwrites.
        placed: which items have the ID that `codes` says, bool [N], which `place` overwrites.
        taken: IDs that are not available, int64 [M, levels].
        choose_last: chooses the codes at the last level.
    """

    def __init__(
        self,
        levels: Levels,
        rows: Callable[[Tensor], Tensor],
        codes: Tensor,
        placed: Tensor,
        taken: Tensor,
        choose_last: Choose,
    ) -> None:
        self.levels, self.rows, self.codes, self.placed, self.taken = levels, rows, codes, placed, taken
        self.choose_last = choose_last

    def place(self, items: Tensor) -> None:
        """Give each of the items, int64 [n], an ID that no other item has.

        An item looks for a free code at the last level. If its prefix has none left, it takes the next best code
        at the level before, under which there is room, and again a free code at the last level; and so on, up to
        the first level.
        """
        for level in reversed(range(len(self.levels.sizes))):
            if not len(items):
                return
            found = self._choose(items, level)
            placed = items[found >= 0]
            self.codes[placed, level] = found[found >= 0]
            for below in range(level + 1, len(self.levels.sizes)):  # there is room for all of them
                self.codes[placed, below] = check_found(self._choose(placed, below))
            self.placed[placed] = True
            items = items[found < 0]

    def _choose(self, items: Tensor, level: int) -> Tensor:
        """Codes at a level for items [n] with given codes before it; −1 where all are full."""
        last = level == len(self.levels.sizes) - 1
        choose = self.choose_last if last else choose_nearest
        size, capacity = self.levels.sizes[level], self._capacity(level)
        held = torch.cat([self.taken, self.codes[self.placed]])
        groups, held_groups = shared_group_numbers(self.codes[items, :level], held[:, :level])
        held_codes = held[:, level]
        found = torch.empty_like(items)
        for chunk in chunks(groups, max(1, ENTRIES // size)):
            numbers, local = torch.unique(groups[chunk], return_inverse=True)
            place = torch.searchsorted(numbers, held_groups).clamp(max=len(numbers) - 1)
            ours = numbers[place] == held_groups
            used = (place[ours] * size + held_codes[ours]).bincount(minlength=len(numbers) * size)
            room = (capacity - used).reshape(len(numbers), size)
            chosen = items[chunk]
            request = Request(self.rows(chosen), self.codes[chosen, :level], local, room)
            found[chunk] = codes = choose(self.levels, request)
            held_groups = torch.cat([held_groups, groups[chunk][codes >= 0]])  # a large group has several chunks
            held_codes = torch.cat([held_codes, codes[codes >= 0]])
        return found

    def _capacity(self, level: int) -> int:
        """The number of IDs with the same codes up to this level, as far as int64 reaches."""
        return min(math.prod(self.levels.sizes[level + 1 :]), 2**62)


def check_found(codes: Tensor) -> Tensor:
    """Return `codes`. Raises: ValueError for −1, where a code that seemed free is not finite."""
    if (codes < 0).any():
        raise ValueError("a codebook of the quantizer contains codes that are not finite, expected a fitted one")
    return codes


def choose_nearest(levels: Levels, request: Request) -> Tensor:
    """Take the nearest code with room; where several items want the last room, the nearest gets it."""
    x, prefixes, groups, room = request
    # At most the full codes, and those that the other items of the group take, are out of an item's reach.
    longest = int(((room <= 0).sum(1) + groups.bincount(minlength=len(room))).max())
    width = min(room.shape[1], longest)
    candidates = torch.empty(len(x), width, dtype=torch.int64)
    distances = torch.empty(len(x), width, dtype=torch.float64)
    for items, targets, codebook in levels.searches(x, prefixes, groups):
        found, squared = k_nearest_codes(targets[None], codebook[None], width)
        candidates[items], distances[items] = found[0].cpu(), squared[0].cpu().double()
    return accept(groups, candidates, distances, room)


def chunks(groups: Tensor, rows: int) -> Iterator[Tensor]:
    """Positions in `groups` [n], up to `rows` at a time, in the order of the sizes of the groups.

    A group is not divided, unless it is larger than `rows`.
    """
    if not len(groups):
        return
    order = groups.argsort(stable=True)
    order = order[group_sizes(groups)[order].argsort(stable=True)]
    ordered = groups[order]
    firsts = torch.cat([torch.tensor([True]), ordered[1:] != ordered[:-1]])
    starts = torch.where(firsts, torch.arange(len(order)), 0).cummax(0).values
    start = 0
    while start < len(order):
        stop = min(start + rows, len(order))
        if stop < len(order) and starts[stop] > start:
            stop = int(starts[stop])
        yield order[start:stop]
        start = stop
