"""The codes from which a method starts."""

import torch
from torch import Tensor

from quantizers.clustering.greedy_seeding import greedy_seeds
from quantizers.clustering.kmeans import filled_up
from quantizers.clustering.seeding import seeds
from quantizers.fitting.task import Task

SEEDING = 16  # vectors of the sample per code, from which k-means++ draws
MOST_GREEDY = 4096  # seeds
FEWEST = 2**14  # vectors of the sample, from which it draws at least


def k_means_plus_plus(task: Task) -> Tensor:
    """Seeds from some vectors of the sample by greedy k-means++, see `clustering.greedy_seeding`.

    For more than 4096 codes, which would take too long, by k-means++ itself, see `clustering.seeding`.
    """
    draws, size = task.draws(0), task.table.size
    vectors = task.sample[: max(SEEDING * size, FEWEST)]
    if size > MOST_GREEDY:
        return _completed(task, seeds(vectors, size, draws, None), draws)
    return _completed(task, greedy_seeds(vectors, size, draws), draws)


def random_vectors(task: Task) -> Tensor:
    """The first K distinct vectors of the sample, which is in random order."""
    size, draws = task.table.size, task.draws(0)
    distinct, inverse = torch.unique(task.sample, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(inverse), dtype=torch.int64, device=inverse.device)
    first = first.scatter_reduce(0, inverse, torch.arange(len(inverse), device=inverse.device), "amin")
    return _completed(task, task.sample[first.sort().values[:size]], draws)


def present_codes(task: Task) -> Tensor:
    """The codes that the quantizer has."""
    return task.table.codes().to(task.sample.dtype)


STARTS = {"k-means++": k_means_plus_plus, "random": random_vectors, "codebook": present_codes}


def _completed(task: Task, codes: Tensor, draws: torch.Generator) -> Tensor:
    """K codes on all ranks, with moved copies if there are fewer vectors, and those that are fixed in place."""
    codes = filled_up(codes, task.table.size, "cosine" if task.table.spherical else "euclidean", 1.0, draws)
    if task.table.fixed is not None:
        codes = present_codes(task).where(task.table.fixed[:, None], codes)
    return task.of_first_rank(codes)
