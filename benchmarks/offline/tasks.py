"""What a process gets to fit, and what it has when it is done. Needs only numpy, as the processes of others do."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.offline.cells import Cell

Vectors = np.ndarray  # float32 [N, D], in memory; of a stream, a memory map


@dataclass(frozen=True)
class Task:
    """One run of a contender.

    path        of the vectors, in NumPy's format
    iterations  the most that a contender may take that reads all vectors in each of them
    seeds       float32 [K, D], from which the contenders start that share seeds
    seed        of random numbers
    threads     that the contender may use
    """

    cell: Cell
    path: str
    iterations: int
    seeds: np.ndarray | None
    seed: int
    threads: int


@dataclass(frozen=True)
class Fitted:
    """A fitted codebook.

    codes         float32 [K, D]; None for several codebooks, and for one whose inertia is known
    reconstruct   maps vectors [n, D] to what their indices decode to [n, D], for several codebooks
    passes        how often all vectors were assigned to codes; None if not all were
    inertias      (seconds since the start, mean squared distance of all vectors) while the fit ran
    instructions  the vector instructions that ran, as the library names them
    """

    codes: np.ndarray | None = None
    reconstruct: Callable[[Vectors], Vectors] | None = None
    passes: int | None = None
    inertias: tuple[tuple[float, float], ...] = ()
    instructions: str = ""


Fit = Callable[[Vectors, Task], Fitted]
