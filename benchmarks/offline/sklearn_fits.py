"""scikit-learn, as its users call it."""

from typing import Any

import numpy as np

from benchmarks.offline.tasks import Fitted, Task

STREAMED = 10_000  # vectors of a call of partial_fit, about ten times as many as codes


def lloyd(x: np.ndarray, task: Task) -> Fitted:
    """Fit `KMeans` with its defaults, but for the largest number of iterations: k-means++, 300, tolerance 10⁻⁴."""
    return _kmeans(x, task, max_iter=task.iterations)


def elkan(x: np.ndarray, task: Task) -> Fitted:
    return _kmeans(x, task, max_iter=task.iterations, algorithm="elkan")


def lloyd_from_seeds(x: np.ndarray, task: Task) -> Fitted:
    """Fit `KMeans` from the shared seeds, without an early end."""
    return _kmeans(x, task, max_iter=task.iterations, init=task.seeds, tol=0)


def elkan_from_seeds(x: np.ndarray, task: Task) -> Fitted:
    return _kmeans(x, task, max_iter=task.iterations, init=task.seeds, tol=0, algorithm="elkan")


def minibatch(x: np.ndarray, task: Task) -> Fitted:
    """Fit `MiniBatchKMeans` with its defaults: batches of 1024, and an early end."""
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(task.cell.k, random_state=task.seed).fit(x)
    return Fitted(fitted.cluster_centers_, instructions=_instructions())


def streamed(x: np.ndarray, task: Task) -> Fitted:
    """Call `MiniBatchKMeans.partial_fit` with consecutive blocks of a file, each vector once.

    The first block also gives the seeds, so it has as many vectors as the others, or one per code.
    """
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(task.cell.k, random_state=task.seed)
    rows = max(STREAMED, task.cell.k)
    with open(task.path, "rb") as file:  # read rather than mapped, so that its pages do not count as memory
        file.seek(x.offset if isinstance(x, np.memmap) else 0)
        for start in range(0, len(x), rows):
            block = np.fromfile(file, dtype=x.dtype, count=min(rows, len(x) - start) * x.shape[1])
            fitted.partial_fit(block.reshape(-1, x.shape[1]))
    return Fitted(fitted.cluster_centers_, instructions=_instructions())


def _kmeans(x: np.ndarray, task: Task, **options: Any) -> Fitted:
    from sklearn.cluster import KMeans

    fitted = KMeans(
        task.cell.k, n_init="auto" if task.seeds is None else 1, random_state=task.seed, **options
    ).fit(x)
    # After its iterations it assigns all vectors once more.
    return Fitted(fitted.cluster_centers_, passes=fitted.n_iter_ + 1, instructions=_instructions())


def _instructions() -> str:
    """The kernels that OpenBLAS chose for this processor, such as "Haswell", whose kernels use AVX2."""
    from threadpoolctl import threadpool_info

    names = {pool["architecture"] for pool in threadpool_info() if "architecture" in pool}
    return ", ".join(sorted(names))
