"""Rows that count and rows that do not: what a quantizer does to its input, its output and its losses."""

import torch
from torch import Tensor

from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.vectors import are_finite, compute_dtype


def finite_rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return rows [N, D] in their compute dtype, zero where they do not count, and which count, [N] bool."""
    valid = are_finite(x)
    if mask is not None:
        valid = valid & mask
    # Set to zero before any arithmetic, because 0 · NaN is NaN, in a loss and in the gradient of a weight.
    return x.to(compute_dtype(x)).where(valid[:, None], 0.0), valid


def marked_rows(codes: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes [N, D] and indices [N] or [N, C], NaN and −1 in rows that are not valid [N]."""
    chosen = valid[:, None] if indices.dim() > 1 else valid
    return codes.where(valid[:, None], nan(codes)), indices.where(chosen, -1)


def rows_gradient(gradient: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient [N, D] of the rows of the functions above, zero where they are not valid [N]."""
    return gradient.where(valid[:, None], 0.0).to(dtype)


def mean_loss(losses: Tensor, valid: Tensor, channels: int) -> Tensor:
    """Return the mean of losses [..., N] over the valid rows [N] and a number of channels: [...], zero without
    a row.
    """
    # Divide before the sum: the mean may fit float32 where the sum does not.
    return (losses.where(valid, 0.0) / (valid.sum().clamp(min=1) * channels)).sum(-1)


def mean_loss_gradient(gradient: Tensor, valid: Tensor, divisor: Tensor) -> Tensor:
    """Return the gradient [..., N] of the losses of `mean_loss` from that of the means [...].

    Args: divisor: 0-d, the number of valid rows, at least 1, times the number of channels.
    """
    return (gradient / divisor)[..., None].where(valid, 0.0)
