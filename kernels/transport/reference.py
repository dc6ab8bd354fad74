"""Entropic optimal transport between vectors and codes: equations (1) to (4) of kernels/transport/README.md.

Rows are processed in blocks, so that no N × K matrix of more than `SCORE_BUDGET` elements exists.
"""

import math

import torch
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype

SCORE_BUDGET = 2**18  # elements in the largest block of logits: 2 MiB, of which five exist at once


@torch.no_grad()
def sinkhorn_potentials(
    x: Tensor, keys: Tensor, bias: Tensor, counts: Tensor, iterations: int, shares: Tensor | None = None
) -> Tensor:
    """Return the codes' potentials v after the given number of Sinkhorn iterations, in the log domain and float64.

    Args:
        x: [N, D] vectors.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        counts: [N] bool, which vectors have mass; all have the same.
        iterations: number of updates (2), ≥ 0.
        shares: [K], > 0, the column sums b instead of 1/K.

    Returns: [K], float32 (float64 if an input is). Zero if no vector has mass.
    """
    wide_keys, potentials = keys.double(), bias.double()
    column_sums = -math.log(keys.shape[0]) if shares is None else shares.double().log()
    step = max(1, SCORE_BUDGET // max(keys.shape))
    mass = counts.double().log() - counts.sum().clamp(min=1).double().log()
    # Both halves of an iteration need only logits + v from the previous one.
    for _ in range(iterations):
        columns = torch.full_like(potentials, -math.inf)
        for start in range(0, x.shape[0], step):
            rows = slice(start, start + step)
            plan = torch.addmm(potentials, x[rows].double(), wide_keys.T).log_softmax(-1) + mass[rows, None]
            columns = torch.logaddexp(columns, plan.logsumexp(0))
        potentials = potentials + column_sums - columns
    return (potentials - bias.double()).where(counts.any(), 0.0).to(compute_dtype(x, keys, bias))
