"""Tell items with the same codes apart by a number."""

import torch
from torch import Tensor

from quantizers.item_ids.assignment import Assignment
from quantizers.item_ids.groups import ranks_within, shared_group_numbers


def extra_level(assignment: Assignment) -> Tensor:
    """Add a level that counts 0, 1, 2, … among the items with the same codes, the nearest first: [N, levels + 1].

    The codes stay the nearest, and there is no limit to the number of items. The number itself says nothing about
    an item. New items continue the count of those that are there already.

    Source: Rajput et al.: Recommender Systems with Generative Retrieval, 2023 (arXiv 2305.05065, §3.1).
    """
    codes, taken = assignment.codes, assignment.taken
    groups, taken_groups = shared_group_numbers(codes, taken[:, : codes.shape[1]])
    first = torch.zeros(len(codes) + len(taken), dtype=torch.int64)
    if len(taken):
        first.scatter_reduce_(0, taken_groups, taken[:, -1] + 1, "amax")
    numbers = first[groups] + ranks_within(groups, assignment.errors)
    return torch.cat([codes, numbers[:, None]], 1)
