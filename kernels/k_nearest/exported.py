"""The k nearest codes in PyTorch's own operations, for graphs of other runtimes."""

import torch
from torch import Tensor

from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.exported import BLOCK
from quantizers.kernels.common.vectors import are_finite, compute_dtype
from quantizers.kernels.common.wide import wide
from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.exported import chosen_codes, lengths


def k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As kernels/k_nearest/reference.py up to its certificate: codes that are closer together than twice that
    bound count as equally near, and the lowest of them comes first.
    """
    indices = torch.stack(
        [_nearest_indices(rows, codes, k) for rows, codes in zip(x.unbind(0), codebook.unbind(0), strict=True)]
    )
    dtype = compute_dtype(x, codebook)
    squared = [
        (x.to(dtype) - chosen_codes(codebook, column).to(dtype)).square().sum(-1) for column in indices.unbind(-1)
    ]
    squares = torch.stack(squared, -1)
    return indices, squares.where(indices >= 0, nan(squares))


def _nearest_indices(x: Tensor, codebook: Tensor, k: int) -> Tensor:
    device, x, packed = x.device, wide(x), reference.pack(wide(codebook))
    finite = are_finite(x)
    centred = x.where(finite[:, None], 0.0) - packed.centre
    bound = reference.relative_error(x) * (lengths(centred) * packed.radius + 0.5 * packed.radius.square())
    scores, indices = centred[:, :0], torch.zeros_like(centred[:, :0], dtype=torch.int64)
    for start in range(0, codebook.shape[0], BLOCK):
        here = packed.half_norms[start : start + BLOCK] - centred @ packed.centred[start : start + BLOCK].T
        codes = (torch.ones_like(here[:1], dtype=torch.int64).cumsum(-1) + (start - 1)).expand(here.shape)
        scores, indices = _lowest(torch.cat([scores, here], -1), torch.cat([indices, codes], -1), bound, k)
    return indices.where(finite[:, None] & (scores < torch.inf), -1).to(device)


def _lowest(scores: Tensor, indices: Tensor, bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k lowest scores of [N, M], or M if there are fewer, with their indices, the lowest first; scores
    within twice the bound [N] are equal, and the lower index comes first."""
    lowest, chosen = [], []
    for _ in range(min(k, scores.shape[1])):
        near = scores <= (scores.amin(-1) + 2 * bound)[:, None]
        index = indices.where(near, torch.iinfo(torch.int64).max).amin(-1, keepdim=True)
        is_chosen = indices == index
        lowest.append(scores.where(is_chosen, torch.inf).amin(-1, keepdim=True))
        chosen.append(index)
        scores = scores.where(~is_chosen, torch.inf)
    return torch.cat(lowest, -1), torch.cat(chosen, -1)
