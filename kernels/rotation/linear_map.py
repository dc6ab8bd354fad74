"""The linear map of the rotation trick, λR, and its transpose: (1) to (5) of kernels/rotation/README.md."""

import torch
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_RATIO, OPPOSITE
from quantizers.kernels.common.wide import narrowed, wide


def rotate(vectors: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ R v for vectors v [..., D], the rotation that takes x [..., D] to the direction of its code.

    The norm of the result is λ‖v‖ with 1/100 ≤ λ ≤ 100 for all finite vectors; the result is v itself where x or
    its code is zero. Computed in float64; the result has the dtype of v.
    """
    return _rotated(vectors, x, quantized, transposed=False)


def rotate_transposed(vectors: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ Rᵀ v, with the shapes, dtypes and exceptions of `rotate`."""
    return _rotated(vectors, x, quantized, transposed=True)


def _rotated(vectors: Tensor, x: Tensor, quantized: Tensor, transposed: bool) -> Tensor:
    """Return λ Rᵀ v if `transposed`, else λ R v."""
    v, x, q = wide(vectors), wide(x), wide(quantized)
    x_norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    q_norm = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    rotates = (x_norm > 0) & (q_norm > 0)  # else there is no direction to rotate: straight-through
    x_norm, q_norm = x_norm.where(rotates, 1.0), q_norm.where(rotates, 1.0)
    ratio = (q_norm / x_norm).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    x_unit, q_unit = x / x_norm, q / q_norm
    middle = x_unit + q_unit
    middle_norm = torch.linalg.vector_norm(middle, dim=-1, keepdim=True)
    opposite = middle_norm < OPPOSITE
    w = (middle / middle_norm.where(~opposite, 1.0)).where(~opposite, 0.0)
    onto, along = (x_unit, q_unit) if transposed else (q_unit, x_unit)
    rotated = v - 2 * w * _dot(w, v) + 2 * onto * _dot(along, v)
    return narrowed((ratio * rotated).where(rotates, v), vectors.dtype, vectors.device)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)
