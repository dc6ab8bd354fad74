"""The code with the largest score, in float64: equation (3) of kernels/nearest/README.md."""

import torch
from torch import Tensor

from quantizers.kernels.nearest.reference import SCORE_BUDGET, first_set, relative_error


@torch.no_grad()
def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Return argmax_k x·key_k + bias_k in float64, [N, D], [K, D], [K] → int64 [N]; lowest index on ties as in
    (3).
    """
    keys, bias = keys.double(), bias.double()
    largest_key = torch.linalg.vector_norm(keys, dim=-1).amax()
    indices = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    rows = max(1, SCORE_BUDGET // max(keys.shape))
    for start in range(0, x.shape[0], rows):
        block = x[start : start + rows].double()
        scores = torch.addmm(bias, block, keys.T)
        length = torch.linalg.vector_norm(block, dim=-1)
        bound = relative_error(x) * (length * largest_key + bias.abs().amax())
        indices[start : start + rows] = first_set(scores >= (scores.amax(-1) - 2 * bound)[:, None])
    return indices
