"""Decompositions of this library's operations into those of PyTorch, for graphs of other runtimes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quantizers.kernels import plain
from quantizers.kernels.ops import implicit, levels, mean_softmax, nearest, soft  # noqa: F401  registers them
from quantizers.kernels.reference import levels as reference_levels


def decompositions() -> dict[torch._ops.OpOverload, Callable[..., object]]:
    """Map each operation that evaluation calls to a function that computes the same in PyTorch's operations."""
    operations = torch.ops.quantizers

    def lookup(x: Tensor, codebook: Tensor, vector_weight: Tensor, code_weight: Tensor) -> tuple[Tensor, ...]:
        indices, codes, distance = plain.nearest_lookup(x, codebook)
        weight = vector_weight + code_weight
        return codes, indices, (weight * distance).where(weight != 0, 0.0)

    def round_levels(z: Tensor, counts: Sequence[int], slope: float) -> tuple[Tensor, Tensor]:
        # Not `integers`, which copies from the host: a decomposition cannot contain a constant.
        levels_tensor = torch.cat([z.new_full((1,), count, dtype=torch.int64) for count in counts])
        return reference_levels.round_levels(z, levels_tensor, slope)

    return {
        operations.nearest_code.default: plain.nearest_code,
        operations.nearest_lookup.default: lookup,
        operations.highest_score.default: plain.highest_score,
        operations.soft_codes.default: plain.soft_codes,
        operations.log_mean_softmax.default: plain.log_mean_softmax,
        operations.nearest_implicit_code.default: plain.nearest_implicit_code,
        operations.round_levels.default: round_levels,
    }
