"""Items by their IDs, and IDs by their items."""

import abc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, check_size, shown
from quantizers.item_ids.groups import collision_rate
from quantizers.item_ids.items import Item
from quantizers.item_ids.prefixes import PrefixIndex
from quantizers.item_ids.tokens import token, vocabulary


class IDTable(abc.ABC):
    """What `SemanticIDs` answers about the items that it has.

    Args: levels: how many codes an ID has.
    """

    def __init__(self, levels: int) -> None:
        self.items: list[Item] = []
        self.codes = torch.empty(0, levels, dtype=torch.int64, device="cpu")
        self.skipped: list[Item] = []
        self._positions: dict[Item, int] = {}
        self._prefixes: PrefixIndex | None = None

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """The number of codes at each level."""

    @property
    def collision_rate(self) -> float:
        """The share of items that share their ID with another item."""
        return collision_rate(self.codes)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __contains__(self, item: object) -> bool:
        return item in self._positions

    def __getitem__(self, item: Item) -> tuple[int, ...]:
        """The ID of an item. Raises: KeyError for one that has none."""
        if item not in self._positions:
            reason = ": its embedding is not finite" if item in self.skipped else ""
            raise KeyError(f"item {shown(item)} has no ID{reason}")
        return tuple(self.codes[self._positions[item]].tolist())

    def items_with(self, prefix: Sequence[int]) -> list[Item]:
        """The items whose IDs begin with these codes, in the order of their IDs.

        A whole ID gives the item that it names, and an ID of no item an empty list.

        Raises: ValueError for more codes than an ID has.
        """
        return [self.items[row] for row in self._index.rows(self._check(prefix, self.codes.shape[1])).tolist()]

    def next_codes(self, prefix: Sequence[int] = ()) -> list[int]:
        """The codes that follow these in some ID, ascending: what a model may generate next.

        Raises: ValueError for a prefix as long as an ID, or longer.
        """
        return self._index.next_codes(self._check(prefix, self.codes.shape[1] - 1)).tolist()

    def neighbours(self, item: Item, levels: int) -> list[Item]:
        """The other items that share the first `levels` codes of an item, in the order of their IDs.

        Raises: KeyError for an item without an ID; ValueError for levels below 0, or more than an ID has.
        """
        shared = self[item][: check_at_least("levels", levels, 0)]
        if levels > len(shared):
            raise ValueError(f"levels is {levels}, expected at most {len(shared)}, the codes of an ID")
        return [other for other in self.items_with(shared) if other != item]

    def tokens(self, item: Item) -> list[str]:
        """The ID of an item as tokens of a language model, <a_12> <b_3> <c_200>. Raises: as `ids[item]`."""
        return [token(level, code) for level, code in enumerate(self[item])]

    def vocabulary(self) -> list[str]:
        """All tokens that `tokens` may give for the present sizes, level by level."""
        return vocabulary(self.sizes)

    def _append(self, items: Sequence[Item], codes: Tensor, skipped: Sequence[Item]) -> None:
        """Add items with their IDs [n, levels], and items without one."""
        self._positions.update((item, len(self.items) + place) for place, item in enumerate(items))
        self.items = [*self.items, *items]
        self.codes = torch.cat([self.codes, codes])
        without = dict.fromkeys([*self.skipped, *skipped])
        self.skipped = [item for item in without if item not in self._positions]
        self._prefixes = None

    @property
    def _index(self) -> PrefixIndex:
        self._prefixes = self._prefixes or PrefixIndex(self.codes)
        return self._prefixes

    def _check(self, prefix: Sequence[int], longest: int) -> tuple[int, ...]:
        codes = check_size("prefix", prefix)
        if len(codes) > longest:
            raise ValueError(f"prefix has {len(codes)} codes, expected at most {longest}")
        return codes
