"""The vectors of all cells as .npy files, each written once and block by block, so that memory stays bounded."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.offline import features, patches, text

# Of each source: N, D → float32 blocks [n, D].
BLOCKS: dict[str, Callable[[int, int], Iterator[np.ndarray]]] = {
    "patches": patches.blocks,
    "features": features.blocks,
    "text": text.blocks,
}
DIGITS = 12  # of the digest in a file's name


def written(folder: Path, source: str, count: int, dim: int) -> Path:
    """Return the path of `count` vectors in `folder`, float32 [count, dim]; make them if they are not there.

    The name contains a digest of the source's code and of the versions, so that a file never belongs to others.
    The file gets its name when it is complete.

    Raises: InputError if the source has no vectors of this dimension, or not so many.
    """
    path = folder / f"{source}-{count}x{dim}-{_digest(source)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _write(temporary, BLOCKS[source](count, dim), count, dim)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def distinct_positions(path: Path, size: int, seed: int) -> np.ndarray:
    """Return the positions of `size` random vectors that differ from each other, int64: the seeds of a k-means.

    Photographs contain equal patches. Fewer positions are returned if fewer of ten times as many drawn vectors
    are distinct.
    """
    vectors = np.load(path, mmap_mode="r")
    draws = np.random.default_rng(seed)
    drawn = np.sort(draws.choice(len(vectors), min(len(vectors), 10 * size), replace=False))
    _, first = np.unique(vectors[drawn], axis=0, return_index=True)
    return np.sort(draws.permutation(drawn[first])[:size])


def _write(path: Path, blocks: Iterator[np.ndarray], count: int, dim: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
    rows = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            rows += len(block)
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
    if rows != count:
        raise RuntimeError(f"the source gave {rows} vectors, expected {count}")


def _digest(source: str) -> str:
    code = Path(__file__).with_name(f"{source}.py").read_text()
    return hashlib.sha256(f"{code} {machine.versions()}".encode()).hexdigest()[:DIGITS]
