"""Share out the last codes so that their total distance is the smallest."""

import torch
from torch import Tensor

from quantizers.clustering.distinct import distinct_codes
from quantizers.item_ids.assignment import Assignment
from quantizers.item_ids.groups import shared_group_numbers
from quantizers.item_ids.levels import Levels
from quantizers.item_ids.placing import Placing, Request


def auction(assignment: Assignment) -> Tensor:
    """Give the items with the same codes before the last one distinct last codes, as near in total as possible.

    Where `next_code` lets the nearest item keep a code, here any item may move if that lowers the sum of the
    squared distances (LC-Rec, Zheng et al. 2023, arXiv 2311.09049, solves the same problem approximately, by
    optimal transport). Prefixes without a collision stay as they are. Items that find no free code under their
    prefix go on as in `next_code`. No ID is shared at the end.

    Raises: ValueError if there are more items than IDs.
    """
    assignment.check_capacity()
    codes = assignment.codes.clone()
    prefixes, _ = shared_group_numbers(codes[:, :-1], assignment.taken[:, :-1])
    placed = ~torch.isin(prefixes, prefixes[assignment.collisions()])
    movers = (~placed).nonzero()[:, 0]
    rows = assignment.reader.among(movers)
    Placing(assignment.levels, rows, codes, placed, assignment.taken, choose_jointly).place(movers)
    return codes


def choose_jointly(levels: Levels, request: Request) -> Tensor:
    """Take distinct codes with the smallest total of squared distances in each group."""
    x, prefixes, groups, room = request
    chosen = torch.empty(len(x), dtype=torch.int64)
    for items, targets, codebook in levels.searches(x, prefixes, groups):
        numbers, local = torch.unique(groups[items], return_inverse=True)
        full = (room[numbers] <= 0).to(targets.device)
        chosen[items] = distinct_codes(targets, codebook, local.to(targets.device), full).cpu()
    return chosen
