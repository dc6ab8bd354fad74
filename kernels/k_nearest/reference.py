"""The k nearest codes, exactly, in float64: equations (1) to (3) of kernels/k_nearest/README.md.

Scores are computed in blocks of rows, so that no N × K matrix of more than `SCORE_BUDGET` elements exists.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest import reference as nearest
from quantizers.kernels.nearest.reference import Packed

SCORE_BUDGET = nearest.SCORE_BUDGET  # elements in the largest block


@torch.no_grad()
def k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest codes of each vector in Euclidean distance, the nearest first, by equations (1) to (3).

    Args:
        x: [H, N, D] vectors, any floating dtype, finite or not.
        codebook: [H, K, D] codes. A code that is not finite is never chosen.
        k: from 1 to K.

    Returns:
        indices: [H, N, k] int64. Each is the nearest of the codes that are not listed before it, up to a relative
            error of (2D + 16)·2⁻⁵³, and the lowest index of equal distances; −1 where a vector is not finite, and
            at the end where fewer than k codes are finite.
        squared_distance: [H, N, k], the difference form Σ(x − e)² in float32 (float64 if an input is float64),
            summed in float64; NaN where the index is −1.
    """
    return in_blocks(x, codebook, k, k_nearest_rows, SCORE_BUDGET)


def in_blocks(
    x: Tensor, codebook: Tensor, k: int, search: Callable[[Tensor, Packed, int], Tensor], budget: int
) -> tuple[Tensor, Tensor]:
    """Return the results of `k_nearest_codes`, for a search of rows like `k_nearest_rows`.

    Args:
        budget: elements in the largest matrix of a block, of scores or of the chosen codes.
    """
    heads, n, d = x.shape
    indices = torch.empty((heads, n, k), dtype=torch.int64, device=x.device)
    squared_distance = torch.empty((heads, n, k), dtype=compute_dtype(x, codebook), device=x.device)
    rows = max(1, budget // max(codebook.shape[1], k * d))
    for head in range(heads):
        packed = nearest.pack(codebook[head])
        for start in range(0, n, rows):
            block = x[head, start : start + rows].double()
            found = search(block, packed, k)
            indices[head, start : start + rows] = found
            squared_distance[head, start : start + rows] = squared_distances(block, packed, found)
    return indices, squared_distance


def k_nearest_rows(x: Tensor, packed: Packed, k: int) -> Tensor:
    """Return indices [R, k] of rows x [R, D]: by scores alone where these are far enough apart, else by (1) and
    (2), one after the other.
    """
    x, finite = nearest.finite_or_zero(x)
    scores, bound = nearest.scores_of(x, packed)
    indices, uncertain = first_by_score(scores, bound, k)
    if uncertain.any():
        indices[uncertain] = _one_by_one(x[uncertain], scores[uncertain], bound[uncertain], packed, k)
    return indices.where(finite[:, None], -1)


def first_by_score(scores: Tensor, bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the indices [R, k] of the smallest scores [R, K], and the rows [R] for which their order is
    uncertain: those with two scores within twice the bound [R] among the k + 1 smallest, (3).
    """
    smallest, indices = scores.topk(min(k + 1, scores.shape[1]), largest=False)
    # The difference of two infinite scores is NaN, which is certain: neither code is chosen.
    uncertain = (smallest.diff() <= 2 * bound[:, None]).any(-1)
    return indices[:, :k].where(smallest[:, :k] < torch.inf, -1), uncertain


def _one_by_one(x: Tensor, scores: Tensor, bound: Tensor, packed: Packed, k: int) -> Tensor:
    """Return indices [R, k], each that of the nearest code without those before it."""
    distance, indices = nearest.distances(x, packed), []
    for _ in range(k):
        smallest = scores.amin(-1, keepdim=True)
        near = scores <= smallest + 2 * bound[:, None]
        index = nearest.lowest_of_nearest(distance, near, nearest.relative_error(x))[:, None]
        indices.append(index.where(smallest < torch.inf, -1))
        scores = scores.scatter(1, index, torch.inf)
    return torch.cat(indices, 1)


def squared_distances(x: Tensor, packed: Packed, indices: Tensor) -> Tensor:
    """Return Σ(x − e)² [R, k] for rows x [R, D] and indices [R, k]; NaN where the index is −1."""
    chosen = packed.codes[indices.clamp(min=0)]
    return (x[:, None] - chosen).square().sum(-1).masked_fill(indices < 0, torch.nan)
