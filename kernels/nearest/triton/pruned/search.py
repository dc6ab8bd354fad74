"""The search of the leaves that remain, with rows and codes in the order of a tree's leaves.

"Pruning on matrix units" in kernels/nearest/README.md. The results are those of the search of all codes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.nearest.triton.frame import Frame
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows, Permutation, pack
from quantizers.kernels.nearest.triton.pruned.coordinates import leaf_boxes, place
from quantizers.kernels.nearest.triton.pruned.order import CodeOrder, orders
from quantizers.kernels.nearest.triton.pruned.remaining import remaining_leaves
from quantizers.kernels.nearest.triton.search import Minima, search
from quantizers.kernels.nearest.triton.tiles import Layout, Search, Tiles, bound

BLOCK_N = 64  # rows of a tile: the fewer, the more leaves can be skipped
WARPS = 4
LISTED = 2**24  # leaves in the lists of the tiles of rows at a time: 64 MiB


class Pruning(NamedTuple):
    """The leaves of a codebook."""

    order: CodeOrder
    boxes: Tensor  # [2, H, COORDINATES, L]: see `leaf_boxes`


def pruning(codebook: Tensor, where: Frame, properties: Search) -> Pruning | None:
    """Return the leaves of [H, K, D], if a measurement has found an order for searches like this one."""
    order = orders.get(properties)
    if order is None or len(order.codes) != len(codebook) or order.codes.device != codebook.device:
        return None
    return Pruning(order, leaf_boxes(codebook, where, order))


def pruned_tiles(full: Tiles, leaf: int) -> Tiles:
    """Return the tiles of the search of leaves, from those of the search of all codes: about as many programs."""
    splits = -(-full.splits * BLOCK_N // full.block_n)
    return full._replace(block_n=BLOCK_N, block_k=leaf, warps=WARPS, splits=splits)


def rows_at_a_time(leaves: Pruning) -> int:
    """Return how many rows of each head may be searched at a time."""
    order = leaves.order
    return max(1, LISTED // (len(order.codes) * order.leaves)) * BLOCK_N


def pruned_search(
    x: Tensor,
    codebook: Tensor,
    where: Frame,
    leaves: Pruning,
    cut: Layout,
    tiles: Tiles,
    count: Tensor,
    codes: PackedCodes | None,
) -> tuple[PackedRows, PackedCodes, Minima, Permutation]:
    """Pack and search the rows [H, N, D] in the order of their leaves, without the leaves that are too far.

    Args:
        count, codes: see `pack`.
    """
    placed = place(x, where, leaves.order)
    order = Permutation(torch.sort(placed.part, dim=1).indices, leaves.order.codes)
    packed, codes = pack(codebook, x, where, cut, tiles, count, codes, order)
    steps = remaining_leaves(
        packed, codes, where, bound(cut), cut, tiles, leaves.boxes, placed, order.rows, x.shape[-1]
    )
    return packed, codes, search(packed, codes, cut, tiles, steps), order
