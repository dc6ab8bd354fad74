"""Training, base and query vectors of one kind, drawn together, so that no position of the data is in two sets."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.offline.data import vectors
from benchmarks.search.settings import Settings


class Split(NamedTuple):
    """Disjoint sets of vectors [n, D]."""

    train: Tensor
    base: Tensor
    queries: Tensor


def draw(kind: str, settings: Settings, seed: int) -> Split:
    """Draw the three sets of a kind. The same kind, sizes and seed give the same vectors."""
    sizes = [settings.train, settings.base, settings.queries]
    drawn = vectors(kind, sum(sizes), settings.dim, seed)
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))
    return Split(*drawn[order].split(sizes))
