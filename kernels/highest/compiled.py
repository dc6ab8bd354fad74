"""The code with the largest score on a CPU, by the search of kernels/nearest; see kernels/nearest/nearest.cpp."""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, threads
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.packed import pack


def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """As in kernels/highest/reference.py."""
    dtype = compute_dtype(x, keys, bias)
    x, keys, bias = (tensor.detach().to(dtype).contiguous() for tensor in (x, keys, bias))
    indices = torch.empty(x.shape[0], dtype=torch.int64)
    number = threads(x.numel() * keys.shape[0])
    if dtype == torch.float64:
        call("quantizers_highest_score_double", [x, x.shape[0], keys, bias, *keys.shape, number, indices])
    else:
        packed = pack(keys, bias)
        call("quantizers_highest_score", [x, x.shape[0], *packed.arguments(), number, indices])
    return indices
