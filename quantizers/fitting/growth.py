"""Lloyd's steps on random samples that grow, before passes over all vectors."""

from torch import Tensor

from quantizers.fitting.lloyd import settled
from quantizers.fitting.relocation import relocated
from quantizers.fitting.task import Task

SMALLEST_SAMPLE = 16  # vectors per code
GROWTH = 4
LARGEST_SHARE = 8  # of all vectors, one in so many are in the largest sample


def grown(task: Task, codes: Tensor) -> Tensor:
    """Long steps of Lloyd's on random samples, each of which contains the one before and three times as much.

    Few vectors place the codes roughly; only small corrections need all of them. A sample grows once the codes
    have settled, see `fitting.lloyd.settled`, and those of little use have moved, see `fitting.relocation`. The
    first sample has 16 vectors per code, and the last one at most an eighth of all. Nested samples are from
    Newling and Fleuret, "Nested Mini-Batch K-Means", NeurIPS 2016 (arXiv 1602.02934), whose rule for growing is
    another one.

    Args: codes: [K, D].
    """
    count = SMALLEST_SAMPLE * task.table.size
    largest = len(task.sample) if task.count is None else min(len(task.sample), task.count // LARGEST_SHARE)
    while count <= largest:
        codes = relocated(task, settled(task, codes, count), count)
        count *= GROWTH
    return codes
