"""New items for a table of semantic IDs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.fitting.report import OnProgress
from quantizers.item_ids.assignment import assign
from quantizers.item_ids.collisions import POLICIES
from quantizers.item_ids.items import Item, Items, check_count, check_distinct, check_items
from quantizers.item_ids.levels import Levels
from quantizers.vectors import Vectors


class Added(NamedTuple):
    """New items."""

    items: list[Item]
    """Those that have an ID, in the order of their rows."""
    codes: Tensor
    """Their IDs, int64 [n, levels]."""
    skipped: list[Item]
    """Those without one, because their embedding is not finite."""
    collided: int
    """How many of `items` have the nearest codes of another item, or of one that was there."""


def check_new_items(items: Items | None, present: Sequence[Item], vectors: Vectors) -> list[Item] | None:
    """The names of new items as far as they are known before a pass over the embeddings; None for numbers.

    Raises: ValueError for names that do not fit, and TypeError for what is no name.
    """
    if items is None:
        if any(isinstance(item, str) for item in present):
            raise ValueError("items is None, but the items in this table have names; expected a name for each row")
        return None
    names = check_items(items)
    check_distinct(names, present)
    check_count(names, vectors.count, vectors.name)
    return names


@torch.no_grad()
def new_items(
    levels: Levels,
    collisions: str,
    taken: Tensor,
    vectors: Vectors,
    names: Sequence[Item] | None,
    first: int,
    batch_size: int,
    progress: OnProgress | None,
) -> Added:
    """Encode the embeddings of new items, and resolve their collisions.

    Args:
        collisions: the name of a policy.
        taken: the IDs that are there already, int64 [M, levels].
        names: of the items; None numbers them from `first` on.

    Raises: ValueError unless there is a name for each vector, and as the policy.
    """
    with torch.device("cpu"):  # for all tensors that are made, whatever the default is
        assignment = assign(levels, vectors, taken, batch_size, progress)
        count = len(assignment.codes) + len(assignment.skipped)
        names = range(first, first + count) if names is None else names
        check_count(names, count, vectors.name)
        items = [names[row] for row in assignment.reader.rows.tolist()]
        skipped = [names[row] for row in assignment.skipped.tolist()]
        return Added(items, POLICIES[collisions](assignment), skipped, int(assignment.collisions().sum()))


def next_number(items: Iterable[Item]) -> int:
    """The first number above all numbers among the items, at least 0."""
    return max((item for item in items if isinstance(item, int)), default=-1) + 1
