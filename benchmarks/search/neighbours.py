"""Exact nearest neighbours by a search of all vectors."""

import torch
from torch import Tensor

BLOCK = 2**24  # distances that are held at once


def nearest(queries: Tensor, vectors: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` vectors nearest to each query, the nearest first: int64 [Q, count].

    Args: queries: [Q, D]. vectors: [N, D], N ≥ count.
    """
    blocks = queries.split(max(1, BLOCK // len(vectors)))
    found = [torch.cdist(block, vectors).topk(count, largest=False, sorted=True).indices for block in blocks]
    return torch.cat(found)


def nearest_other(positions: Tensor, vectors: Tensor) -> Tensor:
    """Return the position of the nearest vector beside itself, for the vectors at `positions` [P]: int64 [P]."""
    found = nearest(vectors[positions], vectors, 2)
    return torch.where(found[:, 0] == positions, found[:, 1], found[:, 0])
