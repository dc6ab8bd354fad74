"""Decompositions of this library's operations into those of PyTorch, for graphs of other runtimes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# The modules named `operation` register the operations that the table names.
from quantizers.kernels.highest import exported as highest
from quantizers.kernels.highest import operation as _highest  # noqa: F401
from quantizers.kernels.implicit import exported as implicit
from quantizers.kernels.implicit import operation as _implicit  # noqa: F401
from quantizers.kernels.k_nearest import exported as k_nearest
from quantizers.kernels.k_nearest import operation as _k_nearest  # noqa: F401
from quantizers.kernels.levels import operation as _levels  # noqa: F401
from quantizers.kernels.levels import reference as levels
from quantizers.kernels.nearest import exported as nearest
from quantizers.kernels.nearest import operation as _nearest  # noqa: F401
from quantizers.kernels.soft import exported as soft
from quantizers.kernels.soft import mean_softmax as _mean_softmax  # noqa: F401
from quantizers.kernels.soft import operation as _soft  # noqa: F401


def decompositions() -> dict[torch._ops.OpOverload, Callable[..., object]]:
    """Map each operation that evaluation calls to a function that computes the same in PyTorch's operations."""
    operations = torch.ops.quantizers
    return {
        operations.nearest_code.default: nearest.nearest_code,
        operations.nearest_lookup.default: _nearest_lookup,
        operations.k_nearest_codes.default: k_nearest.k_nearest_codes,
        operations.highest_score.default: highest.highest_score,
        operations.soft_codes.default: soft.soft_codes,
        operations.log_mean_softmax.default: soft.log_mean_softmax,
        operations.nearest_implicit_code.default: implicit.nearest_implicit_code,
        operations.round_levels.default: _round_levels,
    }


def _nearest_lookup(x: Tensor, codebook: Tensor, vector_weight: Tensor, code_weight: Tensor) -> tuple[Tensor, ...]:
    indices, codes, distance = nearest.nearest_lookup(x, codebook)
    weight = vector_weight + code_weight
    return codes, indices, (weight * distance).where(weight != 0, 0.0)


def _round_levels(z: Tensor, counts: Sequence[int], slope: float) -> tuple[Tensor, Tensor]:
    # Not `integers`, which copies from the host: a decomposition cannot contain a constant.
    level_counts = torch.cat([z.new_full((1,), count, dtype=torch.int64) for count in counts])
    return levels.round_levels(z, level_counts, slope)
