"""The rows with the smallest keys among all that pass by, with memory for these rows only."""

import torch
from torch import Tensor

Columns = tuple[Tensor, Tensor, Tensor]  # keys [n] int64, positions [n] int64, rows [n, dim]
WAITING = 1024  # rows that at least wait before they are compared with what is kept


class Smallest:
    """Keeps the `count` rows with the smallest keys; of equal keys, those at the lowest positions.

    A row takes the place of the one that it displaces, and rows wait until a sixteenth of the kept ones can be
    displaced at once: little is copied, and sorted rarely. Positions must ascend.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._used = 0
        self._kept: Columns | None = None
        self._bound = 2**63 - 1
        self._waiting: list[Columns] = []

    def add(self, keys: Tensor, positions: Tensor, rows: Tensor) -> None:
        """Consider rows [n, dim] with their keys and positions, int64 [n] on the CPU."""
        room = self._count - self._used
        if room or self._kept is None:
            self._append((keys[:room], positions[:room], rows[:room]))
            keys, positions, rows = keys[room:], positions[room:], rows[room:]
        below = (keys < self._bound).nonzero()[:, 0]
        if len(below):
            self._waiting.append(_select((keys, positions, rows), below))
        if sum(len(each[0]) for each in self._waiting) >= max(WAITING, self._count // 16):
            self._displace()

    def ordered(self) -> Columns | None:
        """What is kept, in ascending order of (key, position); None if nothing was added."""
        self._displace()
        if self._kept is None:
            return None
        keys, positions, rows = self._kept
        order = sort(keys[: self._used], positions[: self._used])
        return _select((keys, positions, rows), order)

    def _append(self, new: Columns) -> None:
        end = self._used + len(new[0])
        if self._kept is None:
            self._kept = _sized(new, len(new[0]))
        elif end > len(self._kept[0]):
            self._kept = _sized(self._kept, min(self._count, max(end, 2 * len(self._kept[0]))))
        for old, added in zip(self._kept, new, strict=True):
            old[self._used : end] = added
        self._used = end
        if end == self._count:
            self._bound = int(self._kept[0].max())

    def _displace(self) -> None:
        if not self._waiting or self._kept is None:
            return
        keys, positions, rows = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        order = sort(torch.cat([self._kept[0], keys]), torch.cat([self._kept[1], positions]))
        stay, leave = order[: self._count], order[self._count :]
        enter, leave = stay[stay >= self._count] - self._count, leave[leave < self._count]
        for old, added in zip(self._kept, (keys, positions, rows), strict=True):
            old[leave.to(old.device)] = added[enter.to(old.device)]
        self._bound = int(self._kept[0].max())


def sort(keys: Tensor, positions: Tensor) -> Tensor:
    """The order by (key, position): indices [n]."""
    by_position = positions.argsort()
    return by_position[keys[by_position].argsort(stable=True)]


def _select(columns: Columns, index: Tensor) -> Columns:
    keys, positions, rows = columns
    return keys[index], positions[index], rows[index.to(rows.device)]


def _sized(columns: Columns, size: int) -> Columns:
    """A copy with room for `size` rows."""
    keys, positions, rows = (
        torch.cat([each, each.new_empty(size - len(each), *each.shape[1:])]) for each in columns
    )
    return keys, positions, rows
