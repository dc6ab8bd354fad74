"""The k nearest codes on a CPU, exactly, by the compiled search of all codes; see k_nearest.cpp."""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, threads
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.cached import codebooks


def k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As in kernels/k_nearest/reference.py."""
    dtype = compute_dtype(x, codebook)
    x, codebook = x.detach().to(dtype).contiguous(), codebook.detach().to(dtype).contiguous()
    indices = torch.empty((*x.shape[:2], k), dtype=torch.int64)
    distance = torch.empty(indices.shape, dtype=dtype)
    for rows, codes, found, squared in zip(x, codebook, indices, distance, strict=True):
        _search_head(rows, codes, k, found, squared)
    return indices, distance


def _search_head(x: Tensor, codebook: Tensor, k: int, indices: Tensor, distance: Tensor) -> None:
    number = threads(x.numel() * codebook.shape[0])
    if x.dtype == torch.float64:
        sizes = [k, codebook, *codebook.shape, number]
        call("quantizers_k_nearest_double", [x, x.shape[0], *sizes, indices, distance])
    else:
        packed = codebooks.get(codebook).packed
        call("quantizers_k_nearest", [x, x.shape[0], k, *packed.arguments(), number, indices, distance])
