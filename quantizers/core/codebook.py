"""Functions on a learned codebook: initialization, lookup and checks."""

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import check_tensor


def init_codes_(codes: Tensor) -> Tensor:
    """Fill codes [K, D] from N(0, 1/D), in place.

    A code then has squared norm 1 on average, whatever K and D. A scale that shrinks with K, such as the uniform
    ±1/K of the first VQ-VAE code, puts all codes close to the origin: one of them wins the whole batch, and the
    loss depends on K before anything is learned. SimVQ's basis has the same distribution (Zhu et al. 2024), so
    that comparisons start equal.
    """
    with torch.no_grad():
        return codes.normal_(std=codes.shape[-1] ** -0.5)


def lookup(codebook: Tensor, indices: Tensor) -> Tensor:
    """Codes [N, D] of indices [N]; an index of −1 reads code 0, for the caller to discard."""
    return F.embedding(indices.clamp(min=0), codebook)


def check_codes(codes: Tensor, *shape: int, name: str = "codebook") -> Tensor:
    """Return `codes` if it is a finite floating tensor of that shape; errors call it `name`.

    Raises: TypeError for another type or dtype; ValueError for another shape, for values that are not finite, and
        for a tensor on the meta device, which has no values.
    """
    if not check_tensor(name, codes).is_floating_point():
        raise TypeError(f"{name} has dtype {codes.dtype}, expected a floating dtype")
    if codes.is_meta:
        raise ValueError(f"{name} is on the meta device, expected a tensor with values")
    if tuple(codes.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(codes.shape)}, expected {shape}")
    if not codes.isfinite().all():
        raise ValueError(f"{name} contains values that are not finite, expected finite ones")
    return codes
