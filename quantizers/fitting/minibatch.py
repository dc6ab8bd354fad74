"""e-means: codes as moving averages of random batches, with an annealed step and a last exact pass."""

import math

import torch
from torch import Tensor

from quantizers.fitting.lloyd import passes
from quantizers.fitting.revival import divided
from quantizers.fitting.statistics import Statistics, statistics_of
from quantizers.fitting.task import Task

START, END = 0.9, 0.999  # decays of the averages
WEAK, STRONG = 0.1, 1.0  # use of a code, 1 for all codes if they are used equally


def e_means(task: Task, codes: Tensor, epochs: int, first: int = 0, **state: Tensor) -> Tensor:
    """Averages of the vectors of each code over random batches, and at the end the means of all vectors.

    e-means (arXiv 2611.09501). Let n_i vectors of a batch, with the sum s_i, choose code i. Then

        N_i ← γ N_i + (1 − γ) n_i,  m_i ← γ m_i + (1 − γ) s_i,  e_i = m_i / N_i

    with a decay γ from 0.9 to 0.999, by half a cosine wave. After each batch, codes whose share of ΣN is below a
    tenth of the mean move beside codes with more than the mean share, and the two share N and m; see
    `clustering.spread`. The samples, the revival's threshold and the decays are choices of this library.

    Args: codes: [K, D]. epochs: passes over the vectors, without the last exact one. first, state: where a former
        process stopped.
    """
    assert task.batches is not None
    sizes = state.get("sizes", codes.new_ones(len(codes), dtype=torch.float64))
    for epoch in range(first, epochs):
        found = Statistics.zero(codes)
        batches = task.journal.counted("batches", task.batches(epoch), task.total)
        done = 0
        for number, z in enumerate(batches):
            batch, indices = statistics_of(z, codes)
            batch = batch.over(task.group)
            done += batch.vectors
            for all_batches, own in zip(found, batch, strict=True):
                all_batches += own
            share = min(1.0, done / task.count) if task.count else 0.0
            decay = _decay((epoch + share) / epochs)
            codes, sizes = _averaged(task, codes, sizes, batch, decay)
            codes, sizes = _revived(task, codes, sizes, z, indices, task.draws(3, epoch, number))
        task.journal.record("batches", found)
        task.journal.save(task.number, epoch + 1, codes, sizes=sizes)
    return passes(task, codes, epochs + 1, max(first, epochs))


def _decay(done: float) -> float:
    return 1 - (1 - END + (END - START) * (1 + math.cos(math.pi * done)) / 2)


def _averaged(task: Task, codes: Tensor, sizes: Tensor, batch: Statistics, decay: float) -> tuple[Tensor, Tensor]:
    """The codes and their weights N after a batch."""
    new_sizes = decay * sizes + (1 - decay) * batch.counts
    sums = decay * sizes[:, None] * codes + (1 - decay) * batch.sums
    means = Statistics(new_sizes, sums, batch.squares).means(codes, task.table.spherical)
    return means.where(task.movable[:, None], codes), new_sizes


def _revived(
    task: Task,
    codes: Tensor,
    sizes: Tensor,
    z: Tensor,
    indices: Tensor,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Move weak codes beside strong ones; each pair shares the weight N of both."""
    use = sizes * len(sizes) / sizes.sum()
    ascending = use.argsort(stable=True)
    ascending = ascending[task.movable[ascending]]
    weak, strong = ascending[use[ascending] < WEAK], ascending[use[ascending] >= STRONG].flip(0)
    if len(weak):
        codes, pairs = divided(task, codes, weak, strong[: 2 * len(weak)], z, indices, draws)
        sizes = sizes.index_copy(0, pairs.flatten(), (sizes[pairs].sum(0) / 2).repeat(2))
    return task.of_first_rank(codes), sizes
