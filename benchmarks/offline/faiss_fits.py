"""faiss, as its users call it."""

import math
from typing import Any

import numpy as np

from benchmarks.offline.tasks import Fitted, Task

ALL = 10**9  # vectors per centroid: none is left out


def as_called(x: np.ndarray, task: Task) -> Fitted:
    """Run `Kmeans` with its defaults: random seeds, 25 iterations on at most 256 vectors per centroid."""
    import faiss

    return _kmeans(faiss, x, task, faiss.Kmeans(task.cell.d, task.cell.k, seed=1 + task.seed))


def all_vectors(x: np.ndarray, task: Task) -> Fitted:
    """Run `Kmeans` on all vectors."""
    import faiss

    options = {"niter": task.iterations, "max_points_per_centroid": ALL, "seed": 1 + task.seed}
    return _kmeans(faiss, x, task, faiss.Kmeans(task.cell.d, task.cell.k, **options), task.iterations)


def from_seeds(x: np.ndarray, task: Task) -> Fitted:
    """Run `Kmeans` on all vectors from the shared seeds."""
    import faiss

    kmeans = faiss.Kmeans(task.cell.d, task.cell.k, niter=task.iterations, max_points_per_centroid=ALL)
    return _kmeans(faiss, x, task, kmeans, task.iterations, init_centroids=task.seeds)


def residual(x: np.ndarray, task: Task) -> Fitted:
    """Train `ResidualQuantizer` with its defaults, a beam of five."""
    import faiss

    return _residual(faiss, x, task, _residual_quantizer(faiss, task))


def residual_greedy(x: np.ndarray, task: Task) -> Fitted:
    """Train `ResidualQuantizer` with a beam of one, as the residual quantizers of autoencoders search."""
    import faiss

    quantizer = _residual_quantizer(faiss, task)
    quantizer.max_beam_size = 1
    return _residual(faiss, x, task, quantizer)


def product(x: np.ndarray, task: Task) -> Fitted:
    """Train `ProductQuantizer` with its defaults."""
    import faiss

    faiss.omp_set_num_threads(task.threads)
    quantizer = faiss.ProductQuantizer(task.cell.d, task.cell.codebooks, _bits(task))
    quantizer.train(x)
    return Fitted(
        reconstruct=lambda block: quantizer.decode(quantizer.compute_codes(block)),
        instructions=_instructions(faiss),
    )


def optimized_product(x: np.ndarray, task: Task) -> Fitted:
    """Train `OPQMatrix` with its defaults, then `ProductQuantizer` on the rotated vectors."""
    import faiss

    faiss.omp_set_num_threads(task.threads)
    rotation = faiss.OPQMatrix(task.cell.d, task.cell.codebooks)
    rotation.train(x)
    quantizer = faiss.ProductQuantizer(task.cell.d, task.cell.codebooks, _bits(task))
    quantizer.train(rotation.apply(x))

    def reconstruct(block: np.ndarray) -> np.ndarray:
        return rotation.reverse_transform(quantizer.decode(quantizer.compute_codes(rotation.apply(block))))

    return Fitted(reconstruct=reconstruct, instructions=_instructions(faiss))


def _kmeans(
    faiss: Any, x: np.ndarray, task: Task, kmeans: Any, passes: int | None = None, **options: Any
) -> Fitted:
    faiss.omp_set_num_threads(task.threads)
    kmeans.train(x, **options)
    return Fitted(kmeans.centroids, passes=passes, instructions=_instructions(faiss))


def _residual_quantizer(faiss: Any, task: Task) -> Any:
    faiss.omp_set_num_threads(task.threads)
    return faiss.ResidualQuantizer(task.cell.d, task.cell.codebooks, _bits(task))


def _residual(faiss: Any, x: np.ndarray, task: Task, quantizer: Any) -> Fitted:
    quantizer.train(x)
    return Fitted(
        reconstruct=lambda block: quantizer.decode(quantizer.compute_codes(block)),
        instructions=_instructions(faiss),
    )


def _bits(task: Task) -> int:
    return math.ceil(math.log2(task.cell.k))


def _instructions(faiss: Any) -> str:
    return " ".join(word for word in str(faiss.get_compile_options()).split() if word not in ("OPTIMIZE", "DD"))
