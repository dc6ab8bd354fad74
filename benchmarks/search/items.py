"""Semantic IDs of items by residual k-means, under each policy for collisions, and by faiss's residual codes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import quantizers
from benchmarks.search import identifiers, of_faiss, ours
from benchmarks.search.coders import FAISS, OURS
from benchmarks.search.measures import relative_error, timed
from benchmarks.search.neighbours import nearest_other
from quantizers.item_ids import SemanticIDs
from quantizers.item_ids.collisions import POLICIES

KEEP = "keep"  # the policy of faiss's codes, whose collisions nothing resolves


class ItemTask(NamedTuple):
    """Items to identify: their vectors [N, D], how many levels of how many codes, and a seed."""

    vectors: Tensor
    levels: int
    size: int
    seed: int
    probes: int


class Neighbours(NamedTuple):
    """Positions of some items, and of the nearest other item of each: int64 [P]."""

    items: Tensor
    nearest: Tensor


def neighbours(task: ItemTask) -> Neighbours:
    """Draw the probes, and find the nearest other item of each."""
    generator = torch.Generator().manual_seed(task.seed)
    items = torch.randperm(len(task.vectors), generator=generator)[: task.probes]
    return Neighbours(items, nearest_other(items, task.vectors))


def rows_of_ours(task: ItemTask) -> list[dict[str, Any]]:
    """Fit one residual quantizer, and resolve its collisions by each policy."""
    sizes = {"num_quantizers": task.levels, "codebook_size": task.size}
    fit_seconds, quantizer = timed(lambda: ours.fitted("residual", task.vectors, task.seed, **sizes))
    pairs = neighbours(task)
    rows = []
    for policy in POLICIES:
        seconds, codes = timed(lambda policy=policy: assigned(quantizer, task.vectors, policy))  # type: ignore[misc]
        decoded = quantizer.decode(codes[:, : task.levels])
        rows.append(_row(OURS, policy, fit_seconds, seconds, task, codes, decoded, pairs))
    return rows


def rows_of_faiss(task: ItemTask) -> list[dict[str, Any]]:
    """Fit a faiss.ResidualQuantizer, whose codes are the IDs as they are."""
    bits = task.size.bit_length() - 1
    fit_seconds, quantizer = timed(lambda: of_faiss.train_residual(task.vectors, task.levels, bits, task.seed))
    seconds, codes = timed(lambda: of_faiss.residual_indices(quantizer, task.vectors))
    decoded = torch.from_numpy(quantizer.decode(quantizer.compute_codes(task.vectors.numpy())))
    return [_row(FAISS, KEEP, fit_seconds, seconds, task, codes, decoded, neighbours(task))]


def assigned(quantizer: quantizers.Quantizer, vectors: Tensor, policy: str) -> Tensor:
    """Return the IDs of items under a policy for collisions: int64 [N, levels], or one level more."""
    return SemanticIDs.from_quantizer(quantizer, vectors, collisions=policy).codes


@torch.no_grad()
def _row(
    library: str,
    policy: str,
    fit_seconds: float,
    assign_seconds: float,
    task: ItemTask,
    codes: Tensor,
    decoded: Tensor,
    pairs: Neighbours,
) -> dict[str, Any]:
    return {
        "library": library,
        "policy": policy,
        "fit_seconds": fit_seconds,
        "assign_seconds": assign_seconds,
        "error": relative_error(task.vectors, decoded),
        **identifiers.numbers(codes, *pairs),
    }


BY_LIBRARY = {OURS: rows_of_ours, FAISS: rows_of_faiss}
