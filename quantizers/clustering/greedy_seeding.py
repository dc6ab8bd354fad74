"""Greedy k-means++: of several vectors drawn for each seed, the one that lowers the inertia most."""

import math

import torch
from torch import Tensor

from quantizers.clustering.scaling import scaled

CHANNELS = 128  # in which distances are compared
PROJECTED = 2 * CHANNELS  # channels from which on fewer are enough
EQUAL = 16  # roundings, relative to the squared lengths, below which two vectors count as equal


@torch.no_grad()
def greedy_seeds(x: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """The greedy variant of k-means++ (Arthur and Vassilvitskii, SODA 2007, section 6), as scikit-learn has it.

    Each seed is the best of 2 + ln K candidates, which are drawn as in `seeding.seeds`: vector i with probability
    ∝ D²ᵢ, its squared distance to the nearest seed so far. It costs 2 + ln K times as much, and Lloyd's iterations
    end with a smaller inertia.

    Distances are matrix products of centred vectors. From 256 channels on, they are those of a random projection
    to 128 channels, which leaves the inertia of every clustering nearly as it is (Boutsidis, Zouzias and Drineas,
    "Random Projections for k-means Clustering", NeurIPS 2010). A vector within rounding of a seed is not drawn.

    Args:
        x: [N, D] vectors, finite, N ≥ 1. size: K. draws: a generator on the CPU.

    Returns: [K, D]; fewer if no further vector has D² > 0.
    """
    centred = _projected(scaled(x - x.mean(0)), draws)
    lengths = centred.square().sum(-1)
    count = 2 + int(math.log(size))
    chosen = torch.randint(len(x), (1,), generator=draws, device="cpu").to(x.device)
    nearest = _distances(centred, lengths, chosen)[:, 0]
    while len(chosen) < size:
        candidates = _drawn(nearest, count, draws)
        if not len(candidates):
            break
        after = torch.minimum(_distances(centred, lengths, candidates), nearest[:, None])
        best = after.sum(0).argmin()
        nearest = after[:, best].clone()
        chosen = torch.cat([chosen, candidates[best][None]])
    return x[chosen]


def _projected(x: Tensor, draws: torch.Generator) -> Tensor:
    """The vectors in at most 128 random directions, where squared distances keep their expectation."""
    if x.shape[1] < PROJECTED:
        return x
    directions = torch.randn(x.shape[1], CHANNELS, generator=draws, device="cpu") / math.sqrt(CHANNELS)
    return x @ directions.to(x)


def _distances(x: Tensor, lengths: Tensor, positions: Tensor) -> Tensor:
    """Squared distances [N, n] of all vectors to some of them; zero within rounding."""
    sums = lengths[:, None] + lengths[positions]
    squared = torch.addmm(sums, x, x[positions].T, alpha=-2)
    return squared.where(squared > EQUAL * torch.finfo(x.dtype).eps * sums, 0.0)


def _drawn(weights: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Positions drawn with replacement, with probability ∝ weights; none if all weights are zero."""
    cumulative = weights.cpu().double().cumsum(0)  # on the CPU, since GPUs have no deterministic cumulative sum
    if not cumulative[-1] > 0:
        return torch.empty(0, dtype=torch.int64, device=weights.device)
    targets = torch.rand(count, dtype=torch.float64, generator=draws, device="cpu") * cumulative[-1]
    targets = targets.minimum(cumulative[-1].nextafter(cumulative.new_zeros(())))
    return torch.searchsorted(cumulative, targets, right=True).to(weights.device)
