"""The cheapest assignment of rows to distinct columns, for many cost matrices at once."""

import torch
from torch import Tensor


def cheapest_columns(costs: Tensor, sizes: Tensor) -> Tensor:
    """Give each row of a cost matrix a column of its own, at the smallest total cost.

    Shortest augmenting paths (Jonker and Volgenant, 1987). Rows are inserted one after the other, each with the
    cheapest chain of moves that ends in a free column. With prices p_c ≥ 0 of the columns, which are 0 for free
    columns, every row has a column of the smallest cost + price, so that no other assignment of these rows is
    cheaper. All matrices take each step together, and those that have found their column wait.

    Args:
        costs: [B, n, C], finite or +∞ for a column that a row may not have.
        sizes: [B], how many of its n rows a matrix uses, in descending order; each at most the number of columns
            with finite costs in all these rows.

    Returns: [B, n] int64 columns; −1 behind the rows that are used. Of equal costs, the lowest column comes first.
    """
    count, rows, columns = costs.shape
    prices = costs.new_zeros(count, columns)
    owners = torch.full((count, columns), -1, dtype=torch.int64, device=costs.device)
    chosen = torch.full((count, rows), -1, dtype=torch.int64, device=costs.device)
    for row, active in enumerate((sizes[:, None] > torch.arange(rows, device=sizes.device)).sum(0).tolist()):
        ends, via = _paths(costs[:active], prices[:active], owners[:active], chosen[:active], row)
        _move(ends, via, owners[:active], chosen[:active], row)
    return chosen


def _paths(costs: Tensor, prices: Tensor, owners: Tensor, chosen: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Find the cheapest free column [B] for a new row, and for each column [B, C] the row that would move to it.

    Raises the prices, in place, by as much as keeps every row at a column of the smallest cost + price.
    """
    lengths, via = costs[:, row] + prices, torch.full_like(owners, row)
    blocked = (owners.gather(1, lengths.argmin(-1, keepdim=True)) >= 0)[:, 0].nonzero().flatten()
    if blocked.shape[0]:
        placed, columns = costs[blocked, :row], chosen[blocked, :row]
        reduced = placed + prices[blocked][:, None]
        reduced = (reduced - reduced.gather(2, columns[..., None])).clamp_(min=0)  # below 0 by rounding only
        lengths[blocked], via[blocked] = _relaxed(lengths[blocked], reduced, columns, owners[blocked] < 0, row)
    ends = lengths.masked_fill(owners >= 0, torch.inf).argmin(-1)
    prices += (lengths.gather(1, ends[:, None]) - lengths).clamp_(min=0)
    return ends, via


def _relaxed(lengths: Tensor, reduced: Tensor, columns: Tensor, free: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Shorten lengths [B, C] by moves of the placed rows, whose reduced costs are [B, row, C], until none helps.

    Bellman and Ford: all moves at once, as often as the longest chain has moves. A chain that is longer than the
    cheapest one to a free column is of no use.
    """
    via = torch.full_like(free, row, dtype=torch.int64)
    while True:
        limit = lengths.masked_fill(~free, torch.inf).amin(-1, keepdim=True)
        shortest, mover = (reduced + lengths.gather(1, columns)[..., None]).min(1)
        shorter = (shortest < lengths) & (shortest < limit)
        if not shorter.any():
            return lengths, via
        lengths, via = shortest.where(shorter, lengths), mover.where(shorter, via)


def _move(ends: Tensor, via: Tensor, owners: Tensor, chosen: Tensor, row: int) -> None:
    """Move the rows along the paths to the free columns, in place; the new row gets its path's first column."""
    moving, column = torch.arange(ends.shape[0], device=ends.device), ends
    while moving.shape[0]:
        mover = via[moving, column]
        before = chosen[moving, mover]
        chosen[moving, mover] = column
        owners[moving, column] = mover
        going_on = mover != row
        moving, column = moving[going_on], before[going_on]
