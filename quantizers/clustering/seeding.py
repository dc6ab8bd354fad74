"""k-means++: draws vectors as the first codes of k-means."""

import torch
from torch import Tensor
from torch import distributed as dist

from quantizers.core.parallel import of_each_rank, rank_in, rows_of_ranks
from quantizers.kernels.common.wide import wide_device
from quantizers.kernels.nearest.operation import nearest_code

Group = dist.ProcessGroup | None
CANDIDATES = 1 / 8  # per pass and seed found so far
ZERO = torch.zeros(1, dtype=torch.float64, device="cpu")


def seeds(x: Tensor, size: int, draws: torch.Generator, group: Group) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007).

    The first seed is any vector. Each further seed is vector i with probability ∝ D²ᵢ, its squared distance to the
    nearest seed so far. A vector that equals a seed has D² = 0 and is never drawn.

    One by one, K seeds take K passes over the vectors. Here one pass gives several seeds of the same distribution,
    by rejection sampling, as in Cohen-Addad et al., "Fast and Accurate k-means++ via Rejection Sampling", NeurIPS
    2020, arXiv 2012.11891. A pass draws an eighth as many candidates as there are seeds, ∝ D². In turn, each of
    them is accepted with probability D² now / D² when drawn, so that the next accepted one is i with probability ∝
    D² when drawn · this ratio = D² now. The first is always accepted, and few are rejected: K = 8192 takes about
    65 passes.

    Args:
        x: [N, D] vectors of this rank, N ≥ 0; their squared distances must fit its dtype. size: K.
        draws: a generator on the CPU, in the same state on all ranks. group: the ranks whose vectors are drawn.

    Returns: [K, D] vectors, the same on all ranks; fewer if no further vector has D² > 0.
    """
    codes = x[:0]
    squared = x.new_full(x.shape[:1], torch.inf)
    weights = torch.ones_like(squared)
    while codes.shape[0] < size:
        candidates, before = _drawn(x, weights, 1 + int(CANDIDATES * codes.shape[0]), draws, group)
        if not candidates.shape[0]:
            break
        new = candidates[_passing(candidates, before, draws)[: size - codes.shape[0]]]
        codes = torch.cat([codes, new])
        squared = weights = squared.minimum(nearest_code(x[None], new[None])[1][0])
    return codes


def _drawn(x: Tensor, weights: Tensor, count: int, draws: torch.Generator, group: Group) -> tuple[Tensor, Tensor]:
    """Draw vectors [count, D] of all ranks ∝ weights, with replacement; returns them and their weights.

    Returns no vectors if all weights are 0.
    """
    # On the CPU, since GPUs have no deterministic cumulative sum.
    cumulative = torch.cat([ZERO, weights.cpu().double().cumsum(0)])
    totals = of_each_rank(group, cumulative[-1:].to(wide_device(x.device))).flatten().cpu()
    edges = torch.cat([ZERO, totals.cumsum(0)])
    if not edges[-1] > 0:
        return x[:0], weights[:0]
    targets = torch.rand(count, dtype=torch.float64, generator=draws, device="cpu") * edges[-1]
    owners = _intervals(edges, targets)
    mine = owners == rank_in(group)
    positions = torch.zeros_like(owners)
    if mine.any():
        positions[mine] = _intervals(cumulative, targets[mine] - edges[owners[mine]])
    rows, row_weights = rows_of_ranks(group, mine.to(x.device), positions.to(x.device), x, weights)
    return rows, row_weights


def _intervals(edges: Tensor, targets: Tensor) -> Tensor:
    """The interval [edges[i], edges[i + 1]) that contains each target; never an empty one, despite rounding."""
    inside = targets.clamp(min=0).minimum(edges[-1].nextafter(ZERO))
    return torch.searchsorted(edges, inside, right=True) - 1


def _passing(candidates: Tensor, before: Tensor, draws: torch.Generator) -> list[int]:
    """Positions of the accepted candidates, each accepted with probability D² now / D² before."""
    rows, now = candidates.cpu().double(), before.cpu().double()
    thresholds = (torch.rand(now.shape, dtype=torch.float64, generator=draws, device="cpu") * now).tolist()
    passing = []
    for position, threshold in enumerate(thresholds):
        if threshold < now[position]:
            passing.append(position)
            now = now.minimum((rows - rows[position]).square().sum(-1))
    return passing
