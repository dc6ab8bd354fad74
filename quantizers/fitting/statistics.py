"""The sums of one assignment of vectors to codes."""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import total
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.sums.operation import code_sums

ROWS = 2**16  # that are searched at once


class Statistics(NamedTuple):
    """Of vectors and the codes that they chose, in float64."""

    counts: Tensor  # [K]
    sums: Tensor  # [K, D]
    squares: Tensor  # [K], the squared distances from the code

    @classmethod
    def zero(cls, codes: Tensor) -> "Statistics":
        """Of no vectors."""
        wide = codes.new_zeros(codes.shape, dtype=torch.float64)
        return cls(wide[:, 0].clone(), wide, wide[:, 0].clone())

    def add(self, z: Tensor, codes: Tensor) -> Tensor:
        """Assign vectors z [N, D], and add their sums to these tensors. Returns: indices [N], −1 for none."""
        indices, squared = nearest_code(z[None], codes[None])
        counts, sums = code_sums(z[None], indices, len(codes))
        _, squares = code_sums(squared[..., None], indices, len(codes))
        for own, new in zip(self, (counts[0], sums[0], squares[0, :, 0]), strict=True):
            own += new
        return indices[0]

    def over(self, group: Group) -> "Statistics":
        """The sums over all ranks."""
        return Statistics(*total(group, *self))

    @property
    def vectors(self) -> int:
        """How many vectors there are."""
        return int(self.counts.sum())

    @property
    def inertia(self) -> float:
        """The mean squared distance; NaN without vectors."""
        return float(self.squares.sum() / self.counts.sum())

    @property
    def used(self) -> int:
        """How many codes have a vector."""
        return int((self.counts > 0).sum())

    def means(self, codes: Tensor, spherical: bool) -> Tensor:
        """The mean of each code's vectors, or its direction; `codes` [K, D] where there is none."""
        means = self.sums / self.counts.where(self.counts > 0, 1.0)[:, None]
        has = (self.counts > 0) & means.isfinite().all(-1)
        if spherical:
            has &= (means != 0).any(-1)
            means = normalize(means)
        return means.to(codes).where(has[:, None], codes)


def statistics_of(z: Tensor, codes: Tensor) -> tuple[Statistics, Tensor]:
    """Assign vectors in memory. Returns: the sums, and indices [N]."""
    sums = Statistics.zero(codes)
    indices = [sums.add(block, codes) for block in torch.split(z, ROWS)]
    return sums, torch.cat([torch.empty(0, dtype=torch.int64, device=z.device), *indices])
