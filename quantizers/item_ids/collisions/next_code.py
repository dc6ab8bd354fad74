"""Move items that collide to the next free code."""

import torch
from torch import Tensor

from quantizers.item_ids.assignment import Assignment
from quantizers.item_ids.groups import ranks_within, shared_group_numbers
from quantizers.item_ids.placing import Placing, choose_nearest


def next_code(assignment: Assignment) -> Tensor:
    """Leave the nearest of the items with the same codes in place; the others take free IDs: [N, levels].

    They change the last code only, while the codes before it have a free one left, and otherwise the code before,
    and so on; see `Placing`. Among several items for one code the nearest gets it. No ID is shared at the end.

    Raises: ValueError if there are more items than IDs.
    """
    assignment.check_capacity()
    codes = assignment.codes.clone()
    groups, taken_groups = shared_group_numbers(codes, assignment.taken)
    placed = (ranks_within(groups, assignment.errors) == 0) & ~torch.isin(groups, taken_groups)
    movers = (~placed).nonzero()[:, 0]
    rows = assignment.reader.among(movers)
    Placing(assignment.levels, rows, codes, placed, assignment.taken, choose_nearest).place(movers)
    return codes
