"""Vectors and codes that can be compared: those that a quantizer searches, and those that it approximates."""

import torch
from torch import Tensor

from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.composite.scaled_stages import ScaledStages
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.scalar.fsp import CDFS
from quantizers.scalar.grid import GridQuantizer


def code_space(quantizer: Quantizer, rows: Rows) -> Tensor:
    """Rows [N, dim] in the space of the codes, [N, code_dim]."""
    return quantizer._project_in(rows).vectors


def approximated(quantizer: Quantizer, z: Tensor) -> Tensor | None:
    """What the values of codes approximate, for z [N, code_dim]; None where it is no vector.

    A grid rounds what its bound leaves of z, cosine distance compares directions, and residual stages start behind
    their `entry`.
    """
    if isinstance(quantizer, ScaledStages):
        return quantizer._apply_entry(z)
    if isinstance(quantizer, NearestCodeQuantizer):
        return quantizer._to_value_space(z)
    if not isinstance(quantizer, GridQuantizer):
        return quantizer._unquantized(z)
    if hasattr(quantizer, "_statistics"):  # the levels are in the units of z
        return z
    if hasattr(quantizer, "cdf"):
        return CDFS[str(quantizer.cdf)](z)
    for bound in ("_bounded", "_vectors"):
        if hasattr(quantizer, bound):
            bounded: Tensor = getattr(quantizer, bound)(z)
            return bounded
    return None


def compared(quantizer: Quantizer, z: Tensor) -> tuple[Tensor, Tensor] | None:
    """Vectors [H, N, D] and codes [H, K, D] as a search compares them, of each of H codebooks.

    None for a quantizer without a table of codes, and where the codes of one stage depend on the others.
    """
    try:
        return quantizer._compared(z)
    except TypeError:
        pass
    if quantizer.composed or isinstance(quantizer, GridQuantizer):
        return None
    codebook = quantizer.codebook
    vectors = quantizer._unquantized(z)
    return (vectors[None], codebook[None]) if vectors.shape[1:] == codebook.shape[1:] else None


def digits(quantizer: GridQuantizer, indices: Tensor) -> Tensor:
    """The level of each channel, int64 [n, code_dim], of indices [n] ≥ 0."""
    weights = torch.tensor(quantizer.digit_weights, device=indices.device)
    return indices[:, None] // weights % quantizer._levels(indices)
