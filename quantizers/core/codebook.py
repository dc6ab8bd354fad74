"""The state of a learned codebook: where it starts, how it is read, set, and moved by averages."""

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import check_tensor


def init_codes_(codes: Tensor) -> Tensor:
    """Fill codes [K, D] from N(0, 1/D), in place.

    A code then has squared norm 1 on average, whatever K and D. A scale that shrinks with K (the uniform
    ±1/K of the first VQ-VAE code) puts all codes into a speck around the origin: one of them wins the whole
    batch, and the loss of a run depends on K before anything is learned. It is also the distribution of
    SimVQ's basis (Zhu et al. 2024), so that comparisons start equal.
    """
    with torch.no_grad():
        return codes.normal_(std=codes.shape[-1] ** -0.5)


def lookup(codebook: Tensor, indices: Tensor) -> Tensor:
    """Codes [N, D] of indices [N]; an index of −1 reads code 0, for the caller to discard."""
    return F.embedding(indices.clamp(min=0), codebook)


def check_codes(codes: Tensor, *shape: int) -> Tensor:
    """`codes`, if it is a finite, floating tensor of that shape; else a sentence that says what came.

    Raises: TypeError for what is no tensor or of another dtype; ValueError for another shape, and for values that
        are not finite or, on the meta device, not there.
    """
    if not check_tensor("codebook", codes).is_floating_point():
        raise TypeError(f"codebook has dtype {codes.dtype}, expected a floating dtype")
    if codes.is_meta:
        raise ValueError("codebook is on the meta device, expected one with values")
    if tuple(codes.shape) != shape:
        raise ValueError(f"codebook has shape {tuple(codes.shape)}, expected {shape}")
    if not codes.isfinite().all():
        raise ValueError("codebook holds values that are not finite")
    return codes


def smoothed_codes(cluster_size: Tensor, embedding_sum: Tensor, epsilon: float) -> Tensor:
    """Codes m_i / N̂_i, [K, D], with Laplace smoothing N̂_i = (N_i + ε) / (N + Kε) · N.

    van den Oord et al. 2017, appendix A.1, with the smoothing of Razavi et al. 2019's published code. N > 0:
    some vector has been seen.
    """
    return embedding_sum / smoothed_sizes(cluster_size, epsilon)[:, None]


def smoothed_sizes(cluster_size: Tensor, epsilon: float) -> Tensor:
    """N̂_i = (N_i + ε) / (N + Kε) · N of N_i [K], [K]."""
    total = cluster_size.sum()
    return (cluster_size + epsilon) / (total + cluster_size.shape[0] * epsilon) * total
