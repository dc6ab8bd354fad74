"""Items choose codes with limited room: deferred acceptance."""

import torch
from torch import Tensor

from quantizers.semantic_ids.groups import ranks_within


def accept(groups: Tensor, candidates: Tensor, distances: Tensor, room: Tensor) -> Tensor:
    """Give each item a code of its group, so that no code gets more items than it has room for.

    Every item asks its nearest code; a code keeps the nearest of the items that have asked it, as many as it has
    room for, and refuses the others, which ask their next nearest code (Gale, Shapley: College Admissions and the
    Stability of Marriage, 1962). At the end no item and code would both prefer each other to what they have. As
    both sides prefer the smaller distance, the result is what taking the nearest pair, then the nearest of what is
    left, and so on, would give; so it does not depend on the order of the items, except among equal distances,
    where the item that comes first and the candidate that comes first have precedence.

    Args:
        groups: the group of each item, int64 [n]. Groups do not affect each other.
        candidates: the codes that an item may ask, int64 [n, k]; −1 for none.
        distances: of the candidates, [n, k].
        room: how many items each code of each group takes, int64 [groups, codes].

    Returns: the codes, int64 [n]; −1 for an item that every candidate refused.
    """
    count = len(candidates)
    flat_room = room.flatten()
    slots = groups[:, None] * room.shape[1] + candidates.clamp(min=0)
    open_ = (candidates >= 0) & (flat_room[slots] > 0)
    costs, order = distances.where(open_, torch.inf).sort(dim=1, stable=True)
    slots, choices = slots.gather(1, order), open_.sum(1)

    asked = torch.zeros(count, dtype=torch.int64)
    slot = torch.full((count,), -1)
    cost = distances.new_zeros(count)
    asking = torch.arange(count)
    while len(asking := asking[asked[asking] < choices[asking]]):
        slot[asking], cost[asking] = slots[asking, asked[asking]], costs[asking, asked[asking]]
        asked[asking] += 1
        holders = (slot >= 0).nonzero()[:, 0]
        ranks = ranks_within(slot[holders], cost[holders])
        asking = holders[ranks >= flat_room[slot[holders]]]
        slot[asking] = -1
    return (slot % room.shape[1]).where(slot >= 0, -1)
