"""The names of items."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quantizers.core.arguments.checks import elements, plain, shown

Item = str | int
"""What a caller calls an item."""

Items = Sequence[Item] | np.ndarray[Any, Any] | Tensor


def check_items(items: Items) -> list[Item]:
    """The names as plain strings and ints.

    Raises: TypeError unless they are a sequence of strings and integers; ValueError for a name that appears twice.
    """
    found = items.tolist() if isinstance(items, np.ndarray | Tensor) and items.ndim else elements(items)
    if found is None:
        raise TypeError(f"items is {shown(items)}, expected a sequence of strings or integers, one for each row")
    names = [plain(item) for item in found]
    for position, name in enumerate(names):
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise TypeError(f"items[{position}] is {shown(found[position])}, expected a string or an integer")
    check_distinct(names)
    return names


def check_distinct(items: Iterable[Item], present: Iterable[Item] = ()) -> None:
    """Raises: ValueError for an item that appears twice, or is among those present."""
    old, seen = set(present), set()
    for item in items:
        if item in old:
            raise ValueError(f"items contains {shown(item)}, which has an ID already")
        if item in seen:
            raise ValueError(f"items contains {shown(item)} twice, expected every item once")
        seen.add(item)


def check_count(items: Sequence[Item], count: int | None, name: str) -> None:
    """Raises: ValueError unless there is one item for each of `count` rows; None if that is not known yet."""
    if count is not None and len(items) != count:
        raise ValueError(f"items has length {len(items)}, but {name} has {count} rows; expected one item for each")
