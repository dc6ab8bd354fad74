"""Rows that share something: their numbers, their ranks, and how many of them there are."""

import torch
from torch import Tensor


def group_numbers(codes: Tensor) -> Tensor:
    """Number the distinct rows of codes [N, levels] in lexicographic order: equal rows get equal numbers, [N]."""
    numbers = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    for column in codes.unbind(1):
        values, ranks = torch.unique(column, return_inverse=True)
        numbers = torch.unique(numbers * max(len(values), 1) + ranks, return_inverse=True)[1]  # below N²
    return numbers


def shared_group_numbers(codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """`group_numbers` of two tables [N, levels] and [M, levels] together: [N] and [M]."""
    numbers = group_numbers(torch.cat([codes, others]))
    return numbers[: len(codes)], numbers[len(codes) :]


def group_sizes(groups: Tensor) -> Tensor:
    """For each element of groups [N], how many elements are equal to it: [N]."""
    return groups.bincount()[groups]


def ranks_within(groups: Tensor, costs: Tensor) -> Tensor:
    """The rank of each element within its group by cost, from 0; equal costs by position. [N]

    Args: groups: numbers ≥ 0, int64 [N]. costs: [N].
    """
    by_cost = costs.argsort(stable=True)
    order = by_cost[groups[by_cost].argsort(stable=True)]
    sorted_groups = groups[order]
    ranks = torch.empty_like(groups)
    ranks[order] = torch.arange(len(groups)) - torch.searchsorted(sorted_groups, sorted_groups)
    return ranks


def collision_rate(codes: Tensor) -> float:
    """The share of the rows of codes [N, levels] that are equal to another row; 0 for no rows."""
    return float((group_sizes(group_numbers(codes)) > 1).double().mean()) if len(codes) else 0.0
