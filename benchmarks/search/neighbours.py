"""Exact nearest neighbours by a search of all vectors."""

import torch
from torch import Tensor

from quantizers.kernels.k_nearest.operation import k_nearest_codes


def nearest(queries: Tensor, vectors: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` vectors nearest to each query, the nearest first: int64 [Q, count].

    Args: queries: [Q, D]. vectors: [N, D], N ≥ count.
    """
    return k_nearest_codes(queries[None], vectors[None], count)[0][0]


def nearest_other(positions: Tensor, vectors: Tensor) -> Tensor:
    """Return the position of the nearest vector beside itself, for the vectors at `positions` [P]: int64 [P]."""
    found = nearest(vectors[positions], vectors, 2)
    return torch.where(found[:, 0] == positions, found[:, 1], found[:, 0])
