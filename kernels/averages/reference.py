"""A step of EMA VQ's moving averages, in PyTorch's operations."""

import torch
from torch import Tensor

from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.sums.operation import ema_code_sums

LARGEST_ROUNDING = 2.0**-14  # relative to a code: one that is farther from its averages was set, not rounded


def average_codes(
    z: Tensor,
    indices: Tensor,
    embedding: Tensor,
    cluster_size: Tensor,
    embedding_sum: Tensor,
    decay: float,
    epsilon: float,
    is_cosine: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new embedding, cluster_size and embedding_sum of `average_codes_` in operation.py."""
    old = sums_of_codes(embedding, cluster_size, embedding_sum, epsilon, is_cosine)
    sizes, sums, moved = moved_averages(z, indices, cluster_size, old, decay)
    return smoothed_codes(sizes, sums, epsilon).where(moved, embedding), sizes, sums


def sums_of_codes(
    embedding: Tensor, cluster_size: Tensor, embedding_sum: Tensor, epsilon: float, is_cosine: bool
) -> Tensor:
    """Return m [K, D]: the stored sums, or N̂ e for the codes that were set since, equation (2)."""
    smoothed = smoothed_sizes(cluster_size, epsilon)[:, None]
    averaged, codes = embedding_sum / smoothed, embedding
    if is_cosine:
        averaged, codes = normalize(averaged), normalize(codes)
    scale = torch.maximum(averaged.abs(), codes.abs()).amax(-1, keepdim=True)
    is_set = ((averaged - codes).abs() > LARGEST_ROUNDING * scale).any(-1, keepdim=True)
    return (smoothed * embedding).where(is_set, embedding_sum)


def moved_averages(
    z: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new averages N [K] and m [K, D], and whether they moved, 0-d bool."""
    averages = ema_code_sums(z[None], indices[None], cluster_size[None], embedding_sum[None], decay)
    sizes, sums = (average[0] for average in averages)
    return sizes, sums, (sizes != cluster_size).any() | (sums != embedding_sum).any()


def smoothed_codes(cluster_size: Tensor, embedding_sum: Tensor, epsilon: float) -> Tensor:
    """Return codes m_i / N̂_i, [K, D], with the smoothed sizes N̂. N must be above 0."""
    return embedding_sum / smoothed_sizes(cluster_size, epsilon)[:, None]


def smoothed_sizes(cluster_size: Tensor, epsilon: float) -> Tensor:
    """Return N̂_i = (N_i + ε) / (N + Kε) · N, [K], from N_i [K]: equation (1), Laplace smoothing."""
    total = cluster_size.sum()
    return (cluster_size + epsilon) / (total + cluster_size.shape[0] * epsilon) * total
