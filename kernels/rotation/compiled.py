"""The backward of the rotation trick on a CPU, in one pass; see rotation.cpp."""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, suffix, threads
from quantizers.kernels.common.vectors import compute_dtype


def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """As in kernels/rotation/reference.py."""
    dtype = compute_dtype(gradient, x, quantized)
    inputs = [tensor.detach().to(dtype).contiguous() for tensor in (gradient, x, quantized)]
    result = torch.empty_like(inputs[0])
    rows, dim = x.numel() // max(1, x.shape[-1]), x.shape[-1]
    call("quantizers_rotate_grad" + suffix(result), [*inputs, rows, dim, threads(8 * x.numel()), result])
    return result.to(gradient.dtype)
