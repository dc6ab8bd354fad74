"""FSQ's bound, rounding and index on a CPU, in one pass; see levels.cpp."""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import Argument, call, suffix, threads


def round_levels(z: Tensor, levels: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """As in kernels/levels/reference.py, bounded in float64."""
    z, levels = z.detach().contiguous(), levels.contiguous()
    codes = torch.empty_like(z)
    indices = torch.empty(z.shape[:-1], dtype=torch.int64)
    sizes: list[Argument] = [indices.numel(), levels, levels.numel(), float(slope), threads(16 * z.numel())]
    call("quantizers_round_levels" + suffix(z), [z, *sizes, codes, indices])
    return codes, indices


def round_levels_backward(gradient: Tensor, z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """As in kernels/levels/reference.py."""
    gradient, z, levels = gradient.to(z.dtype).contiguous(), z.detach().contiguous(), levels.contiguous()
    result = torch.empty_like(z)
    rows = z.numel() // max(1, levels.numel())
    sizes: list[Argument] = [rows, levels, levels.numel(), float(slope), threads(16 * z.numel())]
    call("quantizers_round_levels_backward" + suffix(z), [gradient, z, *sizes, result])
    return result
