"""The k nearest codes: a registered operation."""

from collections.abc import Callable

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_codebook, check_count
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.modes import leaves_library, undifferentiated
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.k_nearest import compiled, exported, reference
from quantizers.kernels.nearest.operation import nearest_code


def _import_k_nearest_codes() -> Callable[..., tuple[Tensor, Tensor]]:
    from quantizers.kernels.k_nearest.triton import k_nearest_codes

    return k_nearest_codes


K_NEAREST_CODES = Operation(
    name="k_nearest_codes",
    reference=reference.k_nearest_codes,
    compiled=compiled.k_nearest_codes,
    import_triton=_import_k_nearest_codes,
)


def k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest codes of each vector in Euclidean distance, the nearest first.

    Each is what `nearest_code` would find without the codes before it, and as exact; for k = 1 `nearest_code`
    itself runs. Memory is O((N + K)·D + N·k).

    Args:
        x: [H, N, D] vectors: float16, bfloat16, float32 or float64, each exact in its own values.
        codebook: [H, K, D] codes. A code that is not finite is never chosen.
        k: from 1 to K.

    Returns:
        indices: [H, N, k] int64; equal distances in the order of their indices. −1 for a vector that is not
            finite, and at the end where fewer than k codes are finite.
        squared_distance: [H, N, k], Σ(x − e)² in float32 (float64 if an input is float64); NaN where the index is
            −1. It has no gradient.

    Raises: ValueError or TypeError if the tensors do not fit together; ValueError for k outside [1, K].
    """
    check_codebook(x, codebook)
    check_count("k", k, codebook.shape[1], "codes")
    if k == 1:
        indices, distance = nearest_code(x, codebook)
        return indices[..., None], distance[..., None]
    search = exported.k_nearest_codes if leaves_library() else _k_nearest_codes
    x, codebook = undifferentiated(x, codebook)
    indices, distance = search(x, codebook, k)
    return indices, distance


@registered("k_nearest_codes")
def _k_nearest_codes(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return K_NEAREST_CODES.run(x, codebook, k)


@_k_nearest_codes.register_fake
def _(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], k)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=compute_dtype(x, codebook))


_k_nearest_codes.register_without_gradient()
_k_nearest_codes.register_vmap(
    along(_k_nearest_codes, 1, 1, along(_k_nearest_codes, 0, 2, one_by_one(_k_nearest_codes)))
)
