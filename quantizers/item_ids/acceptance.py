"""Items choose codes with limited room: deferred acceptance."""

import torch
from torch import Tensor, nn

from quantizers.item_ids.groups import ranks_within

WINDOW = 8
"""Candidates of an item that are compared at a time."""


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
    count, width = candidates.shape
    slots, costs = _sorted(groups, candidates, distances, room)
    held = _Held(count, room.flatten())
    asking, asked = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    while len(asking):
        columns = asked[asking, None] + torch.arange(WINDOW)
        own_slots, own_costs = slots[asking[:, None], columns], costs[asking[:, None], columns]
        accepted = held.would_accept(asking, own_slots, own_costs)
        some = accepted.any(1)
        waiting = asking[~some]
        asked[waiting] += WINDOW
        asking, first = asking[some], accepted[some].byte().argmax(1)[:, None]
        asked[asking] += first[:, 0]
        refused = held.ask(asking, own_slots[some].gather(1, first)[:, 0], own_costs[some].gather(1, first)[:, 0])
        asking = torch.cat([refused, waiting[asked[waiting] < width]])
    return (held.slot % room.shape[1]).where(held.slot >= 0, -1)


def _sorted(groups: Tensor, candidates: Tensor, distances: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """The slots (positions in `room`) and costs of candidates, the nearest first: [n, k + WINDOW].

    Candidates without room, and those that fill up the rows, have infinite costs.
    """
    slots = groups[:, None] * room.shape[1] + candidates.clamp(min=0)
    open_ = (candidates >= 0) & (room.flatten()[slots] > 0)
    costs, order = distances.double().where(open_, torch.inf).sort(dim=1, stable=True)
    padding = (0, WINDOW)
    return nn.functional.pad(slots.gather(1, order), padding), nn.functional.pad(costs, padding, value=torch.inf)


class _Held:
    """Which items have which slots for now.

    Args: count: of items. room: how many of them each slot takes, int64 [slots].
    """

    def __init__(self, count: int, room: Tensor) -> None:
        self.room = room
        self.slot = torch.full((count,), -1)
        self.cost = torch.full((count,), torch.inf, dtype=torch.float64)
        self.last_cost = torch.full(room.shape, torch.inf, dtype=torch.float64)  # of the last item in a full slot
        self.last_item = torch.zeros_like(room)

    def would_accept(self, items: Tensor, slots: Tensor, costs: Tensor) -> Tensor:
        """Whether items [n] go before the last item in slots [n, k]: by cost [n, k], then by position."""
        last = self.last_cost[slots]
        return (costs < last) | ((costs == last) & (costs < torch.inf) & (items[:, None] < self.last_item[slots]))

    def ask(self, items: Tensor, slots: Tensor, costs: Tensor) -> Tensor:
        """Let items [n] ask slots [n]. Returns: the items that have no slot now."""
        self.slot[items], self.cost[items] = slots, costs
        asked = torch.zeros(self.room.shape, dtype=torch.bool)
        asked[slots] = True
        holders = ((self.slot >= 0) & asked[self.slot]).nonzero()[:, 0]
        places_left = self.room[self.slot[holders]] - 1 - ranks_within(self.slot[holders], self.cost[holders])
        last, refused = holders[places_left == 0], holders[places_left < 0]
        self.last_cost[self.slot[last]], self.last_item[self.slot[last]] = self.cost[last], last
        self.slot[refused] = -1
        return refused
