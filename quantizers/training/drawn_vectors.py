"""Moving codes to random vectors of the batch."""

import abc
from typing import ClassVar

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.base import Quantizer
from quantizers.core.parallel import of_each_rank
from quantizers.training.replacement import Replacement, learned


class DrawnVectors(Replacement):
    """Move codes toward random vectors of the batch, as far as `_shares` says; see Replacement.

    The vectors have distinct values and are drawn from all ranks. If there are too few, the least used codes get
    them. The moving averages of an EMA code move toward those of a single vector.
    """

    moved_use: ClassVar[float | None] = None
    """The running use of a code after it has moved; None to keep the value that it has."""

    @abc.abstractmethod
    def _shares(self, use: Tensor) -> Tensor:
        """The fraction of the way to its vector by which each code moves, [K] in [0, 1].

        Args: use: the running use of each code, [K].
        """

    def _replace(self, quantizer: Quantizer, use: Tensor, z: Tensor, indices: Tensor, group: Group) -> int:
        shares = self._shares(use).where(learned(quantizer), 0.0)
        moving = use.argsort(stable=True)  # the least used codes first, in case there are too few vectors
        moving = moving[shares[moving] > 0]
        if not len(moving):
            return 0
        vectors = _draw(z, len(moving), group)
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


def _draw(z: Tensor, count: int, group: Group) -> Tensor:
    """Draw up to `count` distinct vectors, the same on all ranks, from at most `count` random rows of each rank's
    z."""
    own = z[torch.randperm(len(z), device=z.device)[:count]]
    offered = z.new_zeros(count, z.shape[1] + 1)
    offered[: len(own), :-1], offered[: len(own), -1] = own, 1
    draws = shared_generator(z.device, group)
    every = of_each_rank(group, offered).flatten(0, 1)
    distinct = torch.unique(every[every[:, -1] > 0][:, :-1], dim=0)
    order = torch.randperm(len(distinct), generator=draws, device="cpu")
    drawn: Tensor = distinct[order[:count].to(z.device)]
    return drawn
