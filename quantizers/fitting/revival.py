"""One of Lloyd's steps: codes become means, and codes without a vector split those with the largest error."""

import torch
from torch import Tensor

from quantizers.clustering.spread import split
from quantizers.fitting.statistics import Statistics, statistics_of
from quantizers.fitting.task import Task
from quantizers.kernels.common.vectors import normalize

OFFSET = 0.8  # standard deviations: the means of the two halves of a normal distribution are √(2/π) ≈ 0.8 away


def moved(
    task: Task,
    codes: Tensor,
    found: Statistics,
    z: Tensor,
    indices: Tensor,
    draws: torch.Generator,
    *,
    step: float = 1.0,
) -> Tensor:
    """Codes [K, D] after a step: e + step · (mean of its vectors − e); those without a vector lie beside others.

    With 0 < step < 2 the inertia of the same assignment does not grow, since that of a code's n vectors is
    n (1 − step)² ‖mean − e‖² and a constant.

    An empty code takes half of the vectors of a code with a large squared error: the two become e ± 0.8 σ d, see
    `clustering.spread`. A code is split at most once. If more are empty, the others wait for the next step.

    Args: found: the assignment, over all ranks. z, indices: vectors of this rank, all or some of them, and the
        codes that they chose.
    """
    means = found.means(codes, task.table.spherical)
    means = means if step == 1 else torch.lerp(codes, means, step)
    means = normalize(means) if task.table.spherical and step != 1 else means
    codes = means.where(task.movable[:, None], codes)
    empty = ((found.counts == 0) & task.movable).nonzero().flatten()
    if len(empty):
        squares = found.squares.where((found.counts > 1) & task.movable, 0.0)
        strong = squares.argsort(descending=True, stable=True)[: 2 * len(empty)]  # some cannot be split
        codes, _ = divided(task, codes, empty, strong[squares[strong] > 0], z, indices, draws)
    return task.of_first_rank(codes)


def moved_by_sample(
    task: Task, codes: Tensor, found: Statistics, draws: torch.Generator, *, step: float = 1.0
) -> Tensor:
    """`moved` where the vectors have gone by: those of the sample show how to split codes."""
    z, indices = codes[:0], torch.empty(0, dtype=torch.int64, device=codes.device)
    if bool((found.counts == 0).any()):
        z = task.own_sample(len(task.sample))
        _, indices = statistics_of(z, codes)
    return moved(task, codes, found, z, indices, draws, step=step)


def divided(
    task: Task, codes: Tensor, weak: Tensor, strong: Tensor, z: Tensor, indices: Tensor, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Move weak codes beside strong ones, see `clustering.spread.split`.

    Returns: the codes, and the pairs of positions [2, n].
    """
    pairs, placed = split(codes, weak, strong, z, indices, offset=OFFSET, group=task.group, draws=draws)
    placed = normalize(placed) if task.table.spherical else placed
    return codes.index_copy(0, pairs.flatten(), placed), pairs
