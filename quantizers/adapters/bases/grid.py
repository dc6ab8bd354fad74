"""The codes of FSQ's grids, and checks that a quantizer has the grid whose indices are to be kept."""

from typing import Any

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import as_residual
from quantizers.core.base import Quantizer
from quantizers.kernels.levels.digits import index_digits, level_values
from quantizers.scalar.fsq import FSQ
from quantizers.scalar.symmetric import SoftClamp, symmetric_values


def grid_codes(levels: Tensor) -> Tensor:
    """All codes of an FSQ with these levels, int64 [d], in the order of their indices: [K, d]."""
    indices = torch.arange(int(levels.prod()), device=levels.device)
    return level_values(index_digits(indices, levels), levels, torch.float32)


def check_grid(quantizer: Quantizer, levels: tuple[int, ...], bound: str) -> None:
    """Raises: ValueError unless a quantizer is an FSQ with these levels and this bound, and for two levels, whose
    threshold is the paper's in the originals, and 0 in this library, except with bound="narrow"."""
    if min(levels) < 3 and bound != "narrow":
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


def symmetric_codes(levels: Tensor) -> Tensor:
    """All codes of an FSQ with these levels, int64 [d], and symmetric=True: [K, d]."""
    indices = torch.arange(int(levels.prod()), device=levels.device)
    return symmetric_values(index_digits(indices, levels), levels, torch.float32)


def residual_grid_options(levels: tuple[int, ...], stages: int) -> dict[str, Any]:
    """The options with which "residual" stages of "fsq" are ResidualFSQ of vector-quantize-pytorch: a bound in
    front, and symmetric grids, each of the size of one cell of the grid before it."""
    return {
        "stage_dim": len(levels),
        "symmetric": True,
        "bound": "clamp",
        "entry": SoftClamp(levels),
        "scales": _scales(levels, stages),
    }


def check_residual_grid(quantizer: Quantizer, levels: tuple[int, ...], stages: int) -> None:
    """Raises: ValueError unless a quantizer has the stages that `residual_grid_options` describe."""
    what = f"{stages} stages of 'fsq' with levels={levels} and symmetric=True, as plug_in builds them from 'fsq'"
    residual = as_residual(quantizer, f"quantizer is {type(quantizer).__name__}, but the codes to keep are {what}")
    grids = [
        isinstance(stage, FSQ) and stage.symmetric and (stage.level_counts, stage.bound) == (levels, "clamp")
        for stage in residual.stages
    ]
    entry = isinstance(residual.entry, SoftClamp) and residual.entry.levels == levels
    if not (all(grids) and entry and residual.initial_scales == _scales(levels, stages)):
        raise ValueError(
            f"quantizer has stages {', '.join(map(str, residual.stages))}, but the codes to keep are {what}"
        )


def _scales(levels: tuple[int, ...], stages: int) -> list[list[float]]:
    return [[float(level) ** -stage for level in levels] for stage in range(stages)]
