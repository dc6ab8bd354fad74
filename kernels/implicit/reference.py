"""The nearest of codes that a network computes for each vector: QINCo's search (Huijben et al. 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.kernels.common.wide import wide

BUDGET = 2**20  # numbers in the largest intermediate tensor: 4 MiB in float32


@torch.no_grad()
def nearest_implicit_code(
    targets: Tensor,
    context: Tensor,
    codes: Tensor,
    weight: Tensor,
    bias: Tensor,
    blocks: Sequence[Tensor],
) -> Tensor:
    """Return argmin_k ‖t − f(c_k, x̂)‖ of each row, the lowest index of equal distances; shapes as in
    ops/implicit.py.

    The network runs in the dtype of the vectors. Distances are compared as ‖f‖² − 2 t·f in float64, so that a
    distant t does not cost f any digits. Rows are processed in blocks, whose intermediates contain BUDGET numbers
    or one row's.
    """
    n, d = targets.shape
    size, widest = codes.shape[0], max([d, *(block.shape[0] for block in blocks)])
    rows = max(1, BUDGET // (size * widest))
    # W [c; x̂] + b is the sum of a code term and a context term: neither is computed for each pair.
    code_terms = codes + torch.addmm(bias, codes, weight[:, :d].T)
    context_term = context @ weight[:, d:].T
    indices = torch.empty(n, dtype=torch.int64, device=targets.device)
    for start in range(0, n, rows):
        here = slice(start, start + rows)
        values = code_terms + context_term[here, None]
        for up, down in zip(blocks[::2], blocks[1::2], strict=True):
            values = values + torch.relu(values @ up.T) @ down.T
        values = wide(values)
        nearest = (values * (values - 2 * wide(targets[here, None]))).sum(-1).argmin(-1)
        indices[here] = nearest.to(indices.device)
    return indices
