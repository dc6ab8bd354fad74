"""Codes with a limited number of places, each of which goes to the vector that offers the most for it."""

import torch
from torch import Tensor


class Places:
    """Which vector has a place at which code. A full code accepts a higher offer and gives up its lowest one.

    Args:
        count: N, the number of vectors; none has a place yet.
        capacities: [K] int64, the places of each code, ≥ 1.
        threshold: the threshold of a code with free places.
    """

    indices: Tensor  # [N] int64, −1 for a vector that waits
    offers: Tensor  # [N] float64, what a vector offered for its place
    thresholds: Tensor  # [K] float64, the lowest accepted offer of a full code

    def __init__(self, count: int, capacities: Tensor, threshold: float) -> None:
        self.capacities = capacities
        self.indices = capacities.new_full((count,), -1)
        self.offers = torch.zeros(count, dtype=torch.float64, device=capacities.device)
        self.thresholds = torch.full_like(capacities, threshold, dtype=torch.float64)

    def waiting(self) -> Tensor:
        """The vectors without a place, in ascending order."""
        return (self.indices < 0).nonzero().flatten()

    def accept(self, vectors: Tensor, codes: Tensor, offers: Tensor) -> None:
        """Take offers of vectors [n] for codes [n]. Each code keeps the highest, and of equal ones the first."""
        self.indices[vectors], self.offers[vectors] = codes, offers
        size = self.capacities.shape[0]
        wanted = self.capacities.new_zeros(size + 1, dtype=torch.bool)  # the last one is that of index −1
        wanted[codes] = True
        members = wanted[self.indices].nonzero().flatten()
        members = members[self.offers[members].sort(descending=True, stable=True).indices]
        members = members[self.indices[members].sort(stable=True).indices]
        owners = self.indices[members]
        counts = owners.bincount(minlength=size)
        ranks = torch.arange(members.shape[0], device=members.device) - (counts.cumsum(0) - counts)[owners]
        last = members[ranks == self.capacities[owners] - 1]
        self.thresholds[self.indices[last]] = self.offers[last]
        self.indices[members[ranks >= self.capacities[owners]]] = -1
