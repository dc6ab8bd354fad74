"""Passages of text as vectors: hashed character trigrams in their principal directions (latent semantic analysis).

The text is the source code of Python's standard library, with its comments and docstrings, which is on every
machine that runs this. The passages are windows of the text at random positions.
"""

import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.errors import InputError

WINDOW = 128  # characters of a passage
BUCKETS = 1024  # of the hash; no vector can have more channels
BLOCK = 4096  # passages that are computed at once
SAMPLE = 16384  # passages that weights and directions are computed from
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def blocks(count: int, dim: int) -> Iterator[np.ndarray]:
    """Yield the vectors of `count` passages at different positions as float32 blocks [n, dim].

    Each trigram of lower-case bytes goes to one of BUCKETS by a fixed hash. A passage's counts c are weighted as
    (1 + log c)·log(passages / passages with it), divided by their norm, and projected on the `dim` directions with
    the largest second moment (Deerwester et al., "Indexing by Latent Semantic Analysis", 1990).

    Raises: InputError for more channels than buckets, or more passages than positions.
    """
    hashed = _hashed()
    positions = len(hashed) - WINDOW + 3
    if dim > BUCKETS or count > positions:
        raise InputError(
            f"the text gives at most {positions} vectors with at most {BUCKETS} channels; got {count} with {dim}"
        )
    starts = np.random.default_rng(0).permutation(positions)[: max(count, SAMPLE)]
    counts = _counts(hashed, starts[:SAMPLE])
    weights = np.log(len(counts) / np.maximum((counts > 0).sum(0), 1)).astype(np.float32)
    sample = _weighted(counts, weights)
    _, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64))  # in the order of rising moments
    projection = directions[:, ::-1][:, :dim].astype(np.float32)
    for start in range(0, count, BLOCK):
        chosen = starts[start : min(start + BLOCK, count)]
        yield _weighted(_counts(hashed, chosen), weights) @ projection


def _weighted(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return passages [n, BUCKETS] of unit norm."""
    rows = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * weights
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _counts(hashed: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return how often each bucket occurs in the passages: float32 [n, BUCKETS]."""
    buckets = hashed[starts[:, None] + np.arange(WINDOW - 2)].astype(np.int64)
    cells = (buckets + BUCKETS * np.arange(len(starts))[:, None]).ravel()
    return np.bincount(cells, minlength=BUCKETS * len(starts)).reshape(-1, BUCKETS).astype(np.float32)


@cache
def _hashed() -> np.ndarray:
    """The bucket of the trigram at each position of the text, uint16."""
    letters = np.frombuffer(_text().lower(), dtype=np.uint8).astype(np.uint32)
    trigrams = letters[:-2] << 16 | letters[1:-1] << 8 | letters[2:]
    return (trigrams * np.uint32(2654435761) >> np.uint32(22)).astype(np.uint16)  # Knuth's multiplicative hash


def _text() -> bytes:
    library = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(library.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(library).parts)]
    return b"\n".join(path.read_bytes() for path in paths)
