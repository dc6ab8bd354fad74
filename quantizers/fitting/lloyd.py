"""Lloyd's k-means on all vectors, and on a sample."""

import math

from torch import Tensor

from quantizers.fitting.revival import moved, moved_by_sample
from quantizers.fitting.statistics import Statistics, statistics_of
from quantizers.fitting.task import Task

LONG_STEP = 1.8
"""Lee, Baek and Sung found it best in "Modified K-means algorithm for vector quantizer design", IEEE Signal
Processing Letters 4, 1997: codes go beyond the means of their vectors, where the next passes would take them."""
SHORT_STEPS = 2  # of length 1 at the beginning, since the codes are far from where they will be
CONVERGED = 1e-5  # relative decrease of the inertia below which passes over all vectors end

SAMPLE_STEPS = 16  # at most
SETTLED = 0.15  # see `settled`


def passes(task: Task, codes: Tensor, epochs: int, first: int = 0) -> Tensor:
    """Passes over all vectors, each of which moves the codes to the means of their vectors.

    Lloyd: "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982. The passes end
    early once the inertia falls by less than 10⁻⁵ of itself.

    Args: codes: [K, D]. epochs: how many passes. first: how many of them a former process made.
    """
    before = _last_inertia(task)
    for epoch in range(first, epochs):
        found = Statistics.zero(codes)
        for z in task.journal.counted("all vectors", task.blocks(codes), task.total):
            found.add(z, codes)
        found = found.over(task.group)
        task.journal.record("all vectors", found)
        is_last = is_settled(before, found.inertia) or epoch == epochs - 1
        codes = moved_by_sample(task, codes, found, task.draws(1, epoch))
        task.journal.save(task.number, epochs if is_last else epoch + 1, codes)
        if is_last:
            break
        before = found.inertia
    return codes


def step_length(task: Task) -> float:
    """The length of a step after the last pass in the history: short at the beginning, and then long."""
    made = sum(each.codebook == task.journal.codebook for each in task.journal.history)
    return LONG_STEP if made > SHORT_STEPS else 1.0


def is_settled(before: float, inertia: float) -> bool:
    """Whether the inertia has not fallen by more than 10⁻⁵ of itself."""
    return before - inertia <= CONVERGED * inertia


def _last_inertia(task: Task) -> float:
    """The inertia of the pass before a resumption; infinite at the beginning."""
    history = task.journal.history
    last = history[-1] if history else None
    return (
        last.inertia
        if last and last.codebook == task.journal.codebook and last.phase == "all vectors"
        else math.inf
    )


def settled(task: Task, codes: Tensor, count: int) -> Tensor:
    """Long steps of Lloyd's on the first `count` vectors of the sample.

    n vectors know the means of K codes up to a relative error of about K/n in the inertia. The steps end once the
    inertia falls by less than 0.15 K/n of itself, and at the latest after sixteen.
    """
    z, before = task.own_sample(count), float("inf")
    for step in range(SAMPLE_STEPS):
        found, indices = statistics_of(z, codes)
        found = found.over(task.group)
        task.journal.record("growing samples", found)
        task.journal.tell("growing samples", count, len(task.sample))
        draws = task.draws(2, count, step)
        codes = moved(task, codes, found, z, indices, draws, step=step_length(task))
        if before - found.inertia < SETTLED * task.table.size / count * before:
            break
        before = found.inertia
    return codes
