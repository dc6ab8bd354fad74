"""Faiss's methods, with its default parameters, each as its users call it. Imports faiss where it is used."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.search.coders import FAISS, Coder, Method, Task


def product(task: Task) -> list[Coder]:
    quantizer = _product_codes(task, task.train)
    return [Coder("product", lambda x: quantizer.compute_codes(x.numpy()), lambda c: _tensor(quantizer.decode(c)))]


def rotated_product(task: Task) -> list[Coder]:
    """The index "OPQ,PQ": a rotation with product codes behind it."""
    faiss = _faiss()
    rotation = faiss.OPQMatrix(task.train.shape[1], task.codebooks)
    rotation.train(task.train.numpy())
    quantizer = _product_codes(task, _tensor(rotation.apply(task.train.numpy())))
    return [
        Coder(
            "rotated product",
            lambda x: quantizer.compute_codes(rotation.apply(x.numpy())),
            lambda codes: _tensor(rotation.reverse_transform(quantizer.decode(codes))),
        )
    ]


def residual(task: Task) -> list[Coder]:
    """One residual quantizer, trained with faiss's default beam, and two searches for its codes."""
    quantizer = train_residual(task.train, task.codebooks, task.settings.bits_per_code, task.seed)

    def coder(name: str, width: int) -> Coder:
        def encode(x: Tensor) -> np.ndarray:
            quantizer.max_beam_size = width
            codes: np.ndarray = quantizer.compute_codes(x.numpy())
            return codes

        return Coder(name, encode, lambda codes: _tensor(quantizer.decode(codes)))

    return [coder("residual, greedy", 1), coder("residual, beam", task.settings.beam_width)]


def train_residual(vectors: Tensor, codebooks: int, bits: int, seed: int) -> Any:
    """Train a faiss.ResidualQuantizer with its default beam."""
    quantizer = _faiss().ResidualQuantizer(vectors.shape[1], codebooks, bits)
    _set_clustering(quantizer, seed)
    quantizer.train(vectors.numpy())
    return quantizer


def residual_indices(quantizer: Any, vectors: Tensor) -> Tensor:
    """Encode vectors [n, D] by a faiss.ResidualQuantizer, and unpack its bytes: int64 [n, codebooks]."""
    packed = quantizer.compute_codes(vectors.numpy())
    bits = [quantizer.nbits.at(stage) for stage in range(quantizer.M)]
    return torch.from_numpy(_faiss().unpack_bitstrings(packed, bits).astype(np.int64))


def _product_codes(task: Task, vectors: Tensor) -> Any:
    quantizer = _faiss().ProductQuantizer(vectors.shape[1], task.codebooks, task.settings.bits_per_code)
    _set_clustering(quantizer, task.seed)
    quantizer.train(vectors.numpy())
    return quantizer


def _set_clustering(quantizer: Any, seed: int) -> None:
    """Set the seed, and omit the warning of few training points, of which there is one for every k-means."""
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1


def _faiss() -> Any:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


METHODS = (
    Method(FAISS, "ProductQuantizer", product),
    Method(FAISS, "OPQMatrix, ProductQuantizer", rotated_product),
    Method(FAISS, "ResidualQuantizer", residual),
)
