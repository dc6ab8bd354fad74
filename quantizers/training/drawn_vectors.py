"""Moving codes to random vectors of the batch."""

import abc
from typing import ClassVar

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.base import Quantizer
from quantizers.core.parallel import of_each_rank
from quantizers.training.replacement import Choices, Replacement, learned


class DrawnVectors(Replacement):
    """Move codes toward random vectors of the batch, as far as `_shares` says; see Replacement.

    The vectors have distinct values and are drawn from all ranks; those for a shared codebook in equal parts from
    its places (stages or scales). If there are too few, the least used codes get them. The moving averages of an
    EMA code move toward those of a single vector.
    """

    moved_use: ClassVar[float | None] = None
    """The running use of a code after it has moved; None to keep the value that it has."""

    @abc.abstractmethod
    def _shares(self, use: Tensor) -> Tensor:
        """The fraction of the way to its vector by which each code moves, [K] in [0, 1].

        Args: use: the running use of each code, [K].
        """

    def _replace(self, quantizer: Quantizer, use: Tensor, choices: Choices, group: Group) -> int:
        shares = self._shares(use).where(learned(quantizer), 0.0)
        moving = use.argsort(stable=True)  # the least used codes first, in case there are too few vectors
        moving = moving[shares[moving] > 0]
        if not len(moving):
            return 0
        vectors = _draw(choices, len(moving), group)
        moving = moving[: len(vectors)]
        quantizer.move_codes(moving, vectors, shares[moving])
        self._update_optimizer(quantizer, moving, shares[moving])
        if self.moved_use is not None:
            use[moving] = self.moved_use
        return len(moving)


def shared_generator(device: torch.device, group: Group) -> torch.Generator:
    """A generator on the CPU, in the same state on all ranks, seeded by the first rank's draw on `device`."""
    seed = torch.randint(2**30, (1,), device=device)
    return torch.Generator("cpu").manual_seed(int(of_each_rank(group, seed)[0]))


def _draw(choices: Choices, count: int, group: Group) -> Tensor:
    """Draw up to `count` distinct vectors, the same on all ranks, in equal parts from all places.

    Each rank offers at most `count` of its vectors. Of vectors that are equal, the first place has one.
    """
    z = choices.z
    own = _in_turn(choices.places)[:count]
    offered = z.new_full((count, z.shape[1] + 1), -1.0)  # the vectors, and the number of the place of each
    offered[: len(own), :-1], offered[: len(own), -1] = z[own], choices.places[own].to(z)
    draws = shared_generator(z.device, group)
    every = of_each_rank(group, offered).flatten(0, 1)
    every = every[every[:, -1] >= 0]
    distinct, inverse = torch.unique(every[:, :-1], dim=0, return_inverse=True)
    places = every.new_zeros(len(distinct)).scatter_reduce(0, inverse, every[:, -1], "amin", include_self=False)
    drawn: Tensor = distinct[_in_turn(places.long(), draws)[:count]]
    return drawn


def _in_turn(places: Tensor, draws: torch.Generator | None = None) -> Tensor:
    """A random order of vectors in which their places take turns, until one after the other has no more.

    Args:
        places: the number of each vector's place, [n].
        draws: a generator on the CPU, the same on all ranks; None to draw on the device, for this rank alone.
    """
    device = places.device if draws is None else draws.device
    order = torch.randperm(len(places), generator=draws, device=device).to(places.device)
    ordered = places[order]
    counts = torch.bincount(ordered)
    first = torch.randperm(len(counts), generator=draws, device=device).to(places.device)  # within a turn
    by_place = ordered.argsort(stable=True)
    turns = torch.empty_like(order)
    turns[by_place] = (
        torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[ordered[by_place]]
    )
    return order[(turns * len(counts) + first[ordered]).argsort()]
