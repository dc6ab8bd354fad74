"""What becomes of items that get the same codes: one policy per file.

A policy is a function that takes an `Assignment` and returns the IDs of the new items, int64 [N, levels], or
[N, levels + 1] if it adds a level. It never changes the ID of an item that is there already.
"""

from collections.abc import Callable

from torch import Tensor

from quantizers.core.arguments.checks import shown
from quantizers.item_ids.assignment import Assignment
from quantizers.item_ids.collisions.auction import auction
from quantizers.item_ids.collisions.extra_level import extra_level
from quantizers.item_ids.collisions.keep import keep
from quantizers.item_ids.collisions.next_code import next_code

Policy = Callable[[Assignment], Tensor]

POLICIES: dict[str, Policy] = {
    "next_code": next_code,
    "auction": auction,
    "extra_level": extra_level,
    "keep": keep,
}


NEED_IDS = frozenset({"next_code", "auction"})
"""Policies with which there are no more items than IDs."""


def check_policy(collisions: object) -> str:
    """Return the name of a policy. Raises: ValueError for anything else, with the names that exist."""
    if not isinstance(collisions, str) or collisions not in POLICIES:
        raise ValueError(f"collisions is {shown(collisions)}, expected one of {', '.join(map(repr, POLICIES))}")
    return collisions
