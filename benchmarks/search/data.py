"""Vectors of one kind, and training, base and query vectors among them."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.errors import InputError
from benchmarks.offline.vectors import BLOCKS
from benchmarks.search.settings import Settings

POOL = 2  # vectors are drawn from this many times as many


class Split(NamedTuple):
    """Sets of vectors [n, D]; no vector is in two of them."""

    train: Tensor
    base: Tensor
    queries: Tensor


def draw(kind: str, settings: Settings, seed: int) -> Split:
    """Draw the three sets of a kind. The same kind, sizes and seed give the same vectors."""
    sizes = [settings.train, settings.base, settings.queries]
    return Split(*vectors(kind, sum(sizes), settings.dim, seed).split(sizes))


def vectors(kind: str, count: int, dim: int, seed: int) -> Tensor:
    """Return `count` distinct vectors of a kind in random order, float32 [count, dim].

    Photographs have equal patches. With such a patch among the base vectors and the queries, the nearest
    neighbour would be found whatever the code is.

    Raises: InputError for a number of channels that the kind does not have, or too many vectors.
    """
    distinct = _distinct(kind, POOL * count, dim)
    if len(distinct) < count:
        raise InputError(f"{POOL * count} vectors of {kind} have {len(distinct)} distinct ones; expected {count}")
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))
    return distinct[order[:count]]


@lru_cache(maxsize=1)  # for all seeds
def _distinct(kind: str, count: int, dim: int) -> Tensor:
    """The distinct ones among `count` vectors, [n, dim]."""
    return torch.from_numpy(np.unique(np.concatenate([*BLOCKS[kind](count, dim)]), axis=0))
