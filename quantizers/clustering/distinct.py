"""A code of its own for every vector of a group, at the smallest total distance."""

import torch
from torch import Tensor

from quantizers.clustering.costs import Costs, check_vectors
from quantizers.clustering.matching import cheapest_columns
from quantizers.core.arguments.checks import check_integers, check_tensor
from quantizers.kernels.common.arguments import check_axes, check_device
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.vectors import are_finite
from quantizers.kernels.common.wide import wide_device

COSTS = 2**22  # elements of the costs of groups that are solved together: 32 MiB


@torch.no_grad()
def distinct_codes(x: Tensor, codebook: Tensor, groups: Tensor, taken: Tensor | None = None) -> Tensor:
    """Give the vectors of each group codes that differ from each other, at the smallest total squared distance.

    Groups are independent: two vectors of different groups may get the same code. Use it for the last level of
    semantic IDs, where the items that share all earlier codes form a group. In each group,

        minimize Σᵢ ‖xᵢ − e_kᵢ‖² over distinct codes kᵢ that are not taken,

    by shortest augmenting paths (Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse
    Linear Assignment Problems", Computing 38, 1987), many groups at once. The minimum is exact up to the roundings
    of float64, and deterministic. Where the nearest free codes of a group differ, these are the codes.

    A group may have more vectors than free codes. Then every free code is used, at the smallest total squared
    distance that any choice of vectors allows, and the other vectors get index −1.

    A group of n vectors takes up to n²/2 steps over K codes; the worst case is a group of equal vectors. Memory is
    O((N + K)·D) plus n·K for the largest group.

    Args:
        x: [N, D] vectors of any floating dtype; the arithmetic is in float64.
        codebook: [K, D] codes. A code that is not finite is never chosen.
        groups: [N] integers, the group of each vector: any numbers, or rows of `taken`.
        taken: [G, K] bool, the codes that a group may not use; default: none.

    Returns: [N] int64; −1 for a vector that is not finite, which takes no code, and for one without a free code.

    Raises: TypeError or ValueError if the tensors do not fit together; IndexError for a group outside of `taken`.
    """
    _check(x, codebook, groups, taken)
    indices = torch.full(x.shape[:1], -1, dtype=torch.int64, device=x.device)
    finite, usable = are_finite(x), are_finite(codebook)
    if not finite.any() or not usable.any():
        return indices
    kept, columns = finite.nonzero().flatten(), usable.nonzero().flatten()
    numbers, members = torch.unique(groups[kept].long(), return_inverse=True)
    with without_autocast(x.device):
        costs = Costs.of(x[kept].detach(), codebook[columns].detach())
        device = wide_device(x.device)
        if taken is not None:
            taken = taken[numbers][:, columns].to(device)
        found = _in_groups(costs, members.to(device), taken).to(x.device)
    indices[kept] = columns[found.clamp(min=0)].where(found >= 0, -1)
    return indices


def _in_groups(costs: Costs, members: Tensor, taken: Tensor | None) -> Tensor:
    """Return indices [N] for groups 0 … G − 1 of vectors, each with at least one vector."""
    sizes = members.bincount()
    order, starts = members.sort(stable=True).indices, sizes.cumsum(0) - sizes
    indices = torch.full_like(members, -1)
    free = torch.full_like(sizes, costs.norms.shape[0]) if taken is None else (~taken).sum(-1)
    for group in (sizes > free).nonzero().flatten().tolist():
        rows = order[starts[group] : starts[group] + sizes[group]]
        indices[rows] = _without_room(costs, rows, None if taken is None else taken[group])
    fitting = (sizes <= free).nonzero().flatten()
    # From the largest group to the smallest, so that groups of about one size share a tensor of costs.
    fitting = fitting[sizes[fitting].sort(descending=True, stable=True).indices]
    while fitting.shape[0]:
        largest = int(sizes[fitting[0]])
        together, fitting = fitting.tensor_split([max(1, COSTS // (largest * max(costs.codes.shape)))])
        places = torch.arange(largest, device=members.device)
        inside = places < sizes[together, None]
        rows = order[(starts[together, None] + places).where(inside, 0)]
        each = costs.at(rows.flatten()).view(*rows.shape, -1)
        if taken is not None:
            each.masked_fill_(taken[together, None], torch.inf)
        indices[rows[inside]] = cheapest_columns(each, sizes[together])[inside]
    return indices


def _without_room(costs: Costs, rows: Tensor, taken: Tensor | None) -> Tensor:
    """Return indices [n] of one group with more vectors than free codes; −1 for vectors that get none."""
    free = torch.arange(costs.norms.shape[0], device=rows.device)
    free = free if taken is None else free[~taken]
    indices = torch.full_like(rows, -1)
    if free.shape[0]:
        lengths = costs.rows(rows).square().sum(-1, keepdim=True)  # which matter where vectors may be left out
        squared = lengths + torch.cat([costs.at(part, free) for part in costs.blocks(rows)])
        # Every free code chooses a vector: the roles are exchanged.
        indices[cheapest_columns(squared.T[None], free.new_tensor([free.shape[0]]))[0]] = free
    return indices


def _check(x: Tensor, codebook: Tensor, groups: Tensor, taken: Tensor | None) -> None:
    check_vectors(x, codebook)
    check_integers("groups has", check_tensor("groups", groups))
    if groups.shape != x.shape[:1]:
        raise ValueError(f"groups has shape {tuple(groups.shape)}, expected {tuple(x.shape[:1])}, one per vector")
    check_device(x=x, groups=groups)
    if taken is None:
        return
    check_axes("taken", check_tensor("taken", taken), "[G, K]")
    if taken.dtype != torch.bool:
        raise TypeError(f"taken has dtype {taken.dtype}, expected torch.bool")
    if taken.shape[1] != codebook.shape[0]:
        raise ValueError(f"taken has {taken.shape[1]} columns, expected {codebook.shape[0]}, one per code")
    check_device(x=x, taken=taken)
    if groups.shape[0] and not 0 <= int(groups.min()) <= int(groups.max()) < taken.shape[0]:
        raise IndexError(
            f"groups has values from {int(groups.min())} to {int(groups.max())}, expected rows of taken: 0 to "
            f"{taken.shape[0] - 1}"
        )
