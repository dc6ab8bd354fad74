"""The numbers of one coder: distortion, recall, and seconds."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.search.coders import Coder, Method, Task
from benchmarks.search.data import Split
from benchmarks.search.neighbours import nearest
from benchmarks.search.settings import DEEPEST, DEPTHS

Result = TypeVar("Result")


def rows(method: Method, task: Task, split: Split, truth: Tensor) -> list[dict[str, Any]]:
    """Fit a method and measure each of its coders.

    Args: truth: the position of each query's nearest base vector, int64 [Q].
    """
    fit_seconds, coders = timed(lambda: method.fit(task))
    return [
        {
            "library": method.library,
            "method": coder.name,
            "fit_seconds": fit_seconds,
            **numbers(coder, split, truth),
        }
        for coder in coders
    ]


@torch.no_grad()
def numbers(coder: Coder, split: Split, truth: Tensor) -> dict[str, float]:
    """Encode and decode the base vectors, and search them for the queries, which are not encoded.

    Returns:
        encode_seconds: for all base vectors.
        error: Σ‖x − x̂‖² / Σ‖x − mean‖² over the base vectors: 0 without loss, 1 if every vector gets their mean.
        recall_1, recall_10: the share of queries whose true nearest neighbour is among the R nearest decoded
            vectors, which the literature calls 1-recall@R.
    """
    encode_seconds, codes = timed(lambda: coder.encode(split.base))
    decoded = coder.decode(codes)
    found = nearest(split.queries, decoded, DEEPEST) == truth[:, None]
    recalls = {f"recall_{depth}": found[:, :depth].any(1).double().mean().item() for depth in DEPTHS}
    return {"encode_seconds": encode_seconds, "error": relative_error(split.base, decoded), **recalls}


def relative_error(vectors: Tensor, decoded: Tensor) -> float:
    """Return Σ‖x − x̂‖² / Σ‖x − mean‖² for vectors [N, D], in float64."""
    exact = vectors.double()
    spread = (exact - exact.mean(0)).square().sum()
    return ((exact - decoded).square().sum() / spread).item()


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that `work` took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
