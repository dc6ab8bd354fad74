"""Entropic optimal transport between vectors and codes: a registered operation."""

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_device, check_keys
from quantizers.kernels.common.batching import one_by_one
from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.modes import undifferentiated
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.transport import reference

SINKHORN_POTENTIALS = Operation(name="sinkhorn_potentials", reference=reference.sinkhorn_potentials)


def sinkhorn_potentials(x: Tensor, keys: Tensor, bias: Tensor, counts: Tensor, iterations: int) -> Tensor:
    """Return potentials v [K] that equalize the use of the codes: (1) to (4).

    The transport plan p(k|n) = softmax_k(x·key + bias + v) then gives each code nearly 1/K of the vectors, and
    `highest_score(x, keys, bias + v)` is the code with the largest share of each vector. Computed without an N × K
    matrix and without a gradient.

    Args:
        x: [N, D] vectors, finite.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        counts: [N] bool, which vectors have mass; all have the same.
        iterations: number of Sinkhorn iterations, ≥ 0; v is zero without any.

    Returns: [K], float32 (float64 if an input is), computed in float64. Zero if no vector has mass.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_keys(x, keys, bias)
    check_device(x=x, counts=counts)
    if counts.dtype != torch.bool or counts.shape != x.shape[:1]:
        raise TypeError(
            f"counts is {counts.dtype} of shape {tuple(counts.shape)}, expected torch.bool of {tuple(x.shape[:1])}"
        )
    potentials: Tensor = _sinkhorn_potentials(*undifferentiated(x, keys, bias, counts), iterations)
    return potentials


@registered("sinkhorn_potentials")
def _sinkhorn_potentials(x: Tensor, keys: Tensor, bias: Tensor, counts: Tensor, iterations: int) -> Tensor:
    return SINKHORN_POTENTIALS.run(x, keys, bias, counts, iterations)


@_sinkhorn_potentials.register_fake
def _(x: Tensor, keys: Tensor, bias: Tensor, counts: Tensor, iterations: int) -> Tensor:
    return bias.new_empty(bias.shape, dtype=compute_dtype(x, keys, bias))


_sinkhorn_potentials.register_without_gradient()
_sinkhorn_potentials.register_vmap(one_by_one(_sinkhorn_potentials))
