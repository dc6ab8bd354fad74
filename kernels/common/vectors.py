"""Vectors of any floating dtype: their compute dtype and direction; and constant integers."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 if any tensor is float64, else float32: the dtype of distances, losses and state."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def integers(values: Sequence[int], device: torch.device) -> Tensor:
    """Return the values as a new tensor [n] int64 on a device. A constant thus needs no buffer that a loader could
    miss.

    Off the CPU, the values are filled in on the device, in runs of equal values: a copy from the host would
    synchronize with the device, and a CUDA graph cannot contain one.
    """
    if device.type in ("cpu", "meta"):
        return torch.tensor(values, dtype=torch.int64, device=device)
    runs = ((value, len(list(run))) for value, run in itertools.groupby(values))
    return torch.cat([torch.full((count,), value, dtype=torch.int64, device=device) for value, count in runs])


def are_finite(x: Tensor) -> Tensor:
    """Return which vectors [..., D] are finite, [...] bool. In eager mode this is many times faster than
    `isfinite().all(-1)`.
    """
    if torch.compiler.is_compiling():
        return (
            x.detach().isfinite().all(-1)
        )  # one fused pass when compiled; a compiler may replace a product with zero by zero
    return (x.detach() * 0).sum(-1) == 0  # 0 · ∞ and 0 · NaN are NaN


def normalize(x: Tensor) -> Tensor:
    """Return x / ‖x‖₂ along the last axis, at any scale of float32. A zero vector stays zero and passes its
    gradient.

    Dividing by the largest component first keeps the squares in range. The direction does not depend on that
    divisor, so the gradient is exact although the divisor is held constant.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / largest.clamp(min=torch.finfo(x.dtype).tiny).where(largest > 0, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    unit: Tensor = scaled / norm.where(norm > 0, 1.0)
    return unit
