"""Splitting a code in two, along the direction in which its vectors spread."""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import total
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.sums.operation import code_sums

POWER_STEPS = 2  # of the power iteration that finds the direction of a code's spread
SMALLEST = 16  # standard deviation of a spread, in roundings of the vectors


class Split(NamedTuple):
    """Weak codes that move beside strong ones."""

    pairs: Tensor  # [2, n]: positions of the weak codes, and of the strong ones
    codes: Tensor  # [2n, D]: where the weak ones come to lie, and then the strong ones

    @property
    def positions(self) -> Tensor:
        """The positions [2n] of `codes`."""
        return self.pairs.flatten()


def split(
    codes: Tensor,
    weak: Tensor,
    strong: Tensor,
    z: Tensor,
    indices: Tensor,
    *,
    offset: float,
    group: Group,
    draws: torch.Generator,
) -> Split:
    """Give each weak code, in turn, the next strong code that can be split: they become e_s ± offset · σ_s d_s.

    Args:
        codes: [K, D]. weak, strong: positions [W] and [S], in the order of their turns.
        z, indices, group, draws: as in `spreads`. offset: > 0, in standard deviations.

    Returns: at most min(W, S) pairs, the same on all ranks.
    """
    spread = spreads(codes, strong, z, indices, group, draws)
    splits = spread.isfinite().all(-1) & spread.any(-1)
    pairs = torch.stack([weak[: splits.sum()], strong[splits][: len(weak)]])
    centers, offsets = codes[pairs[1]], offset * spread[splits][: len(weak)]
    return Split(pairs, torch.cat([centers + offsets, centers - offsets]))


def spreads(
    codes: Tensor, strong: Tensor, z: Tensor, indices: Tensor, group: Group, draws: torch.Generator
) -> Tensor:
    """σ d of some codes: the standard deviation σ of their vectors along a direction d of wide spread.

    d comes from a power iteration on the covariance of the n vectors that chose the code, from a random direction.
    The covariance is taken around e + (n−1)/n · m, where m is the mean of the vectors' differences from e, so that
    the direction of a single vector is that from e to it.

    Args:
        codes: [K, D]. strong: [S], positions of the codes.
        z, indices: vectors [N, D] of this rank, and the codes that they chose, [N].
        group: the ranks whose vectors count. draws: a generator on the CPU, in the same state on all ranks.

    Returns: [S, D], the same bits on all ranks. Zero for a code whose vectors are equal or lie on one side of it,
        |(n−1)/n · m · d| > σ.
    """
    count, centers = len(strong), codes[strong]
    place = torch.full_like(codes[:, 0], -1, dtype=torch.int64)
    place[strong] = torch.arange(count, device=strong.device)
    counts = (indices >= 0) & (place[indices] >= 0)
    z, chosen = z[counts], place[indices][counts]
    differences = z - centers[chosen]
    numbers, sums = (each.to(codes) for each in total(group, *_sums(differences, chosen, count)))
    numbers = numbers.clamp(min=1)[:, None]
    drift = sums / numbers * ((numbers - 1) / numbers)
    differences = differences - drift[chosen]

    directions = normalize(torch.randn(*drift.shape, generator=draws, device="cpu").to(codes))
    for _ in range(POWER_STEPS):
        along = (differences * directions[chosen]).sum(-1, keepdim=True)
        (sums,) = total(group, _sums(along * differences, chosen, count)[1])
        directions = normalize(sums)
    along = (differences * directions[chosen]).sum(-1, keepdim=True)
    (squares,) = total(group, _sums(along.square(), chosen, count)[1])
    deviations = (squares / numbers).sqrt()
    # Of equal vectors, rounding leaves differences.
    smallest = SMALLEST * torch.finfo(codes.dtype).eps * (centers.abs() + drift.abs()).amax(-1, keepdim=True)
    splits = (deviations > smallest) & ((drift * directions).sum(-1, keepdim=True).abs() <= deviations)
    return (deviations * directions).where(splits, 0.0)


def _sums(vectors: Tensor, indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The number of vectors of each index, [count], and their sum [count, D]."""
    counts, sums = code_sums(vectors[None], indices[None], count)
    return counts[0], sums[0]
