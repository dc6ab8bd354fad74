"""The codes of FSQ's grid, and a check that a quantizer has the grid whose indices are to be kept."""

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.kernels.levels.digits import index_digits, level_values
from quantizers.scalar.fsq import FSQ


def grid_codes(levels: Tensor) -> Tensor:
    """All codes of an FSQ with these levels, int64 [d], in the order of their indices: [K, d]."""
    indices = torch.arange(int(levels.prod()), device=levels.device)
    return level_values(index_digits(indices, levels), levels, torch.float32)


def check_grid(quantizer: Quantizer, levels: tuple[int, ...], bound: str) -> None:
    """Raises: ValueError unless a quantizer is an FSQ with these levels and this bound, and for two levels, whose
    threshold is the paper's in the originals, and 0 in this library."""
    if min(levels) < 3:
        raise ValueError(
            f"the codes to keep have levels {levels}, expected at least 3 in each channel: of two levels, this "
            "library's FSQ has another threshold"
        )
    own = (quantizer.level_counts, quantizer.bound) if isinstance(quantizer, FSQ) else None
    if own != (levels, bound):
        raise ValueError(
            f"quantizer is {type(quantizer).__name__} with {own or 'no levels'}, but the codes to keep have "
            f"{(levels, bound)}; expected 'fsq' with these levels and this bound"
        )
