"""The number of vectors of each code, and their sum: registered operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import (
    check_axes,
    check_device,
    check_equal,
    check_floating,
    check_indices,
)
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.modes import is_transformed, number, undifferentiated, with_value
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.sums import compiled, reference


def _import_code_sums() -> Callable[..., tuple[Tensor, Tensor]]:
    from quantizers.kernels.sums.triton import code_sums

    return code_sums


def _import_ema_code_sums() -> Callable[..., tuple[Tensor, Tensor]]:
    from quantizers.kernels.sums.triton import ema_code_sums

    return ema_code_sums


CODE_SUMS = Operation(
    name="code_sums",
    reference=reference.code_sums,
    compiled=compiled.code_sums,
    import_triton=_import_code_sums,
)
EMA_CODE_SUMS = Operation(
    name="ema_code_sums",
    reference=reference.ema_code_sums,
    compiled=compiled.ema_code_sums,
    import_triton=_import_ema_code_sums,
)


def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return how many vectors chose each code, and their sum; bit-equal from run to run, for any number of
    threads.

    Args:
        x: [H, N, D] vectors of floating dtype.
        indices: [H, N] int64 in [−1, K); vectors with index −1 do not count. The range is not checked; other
            indices cause undefined errors.
        codebook_size: K.

    Returns: counts [H, K] and sums [H, K, D], float32 (float64 for float64 input), accumulated in float64. The
    sums are
        differentiable in x.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_axes("x", x, "[H, N, D]")
    check_floating(x=x)
    check_indices(x, indices)
    counts, sums = _code_sums(*undifferentiated(x), indices, codebook_size)
    if is_transformed():
        sums = with_value(_differentiable_sums(x, indices, codebook_size), sums)
    return counts, sums


def _differentiable_sums(x: Tensor, indices: Tensor, codebook_size: int) -> Tensor:
    """Return the sums of `code_sums` up to rounding, in operations that PyTorch differentiates."""
    x = x.to(compute_dtype(x)).where((indices >= 0)[..., None], 0.0)
    targets = indices.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1])
    return x.new_zeros(x.shape[0], codebook_size, x.shape[-1]).scatter_add(1, targets, x)


def ema_code_sums(
    x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the moving averages of `code_sums`, γN + (1−γ)n and γm + (1−γ)s; van den Oord et al. 2017, appendix
    A.1.

    Args:
        x, indices: [H, N, D] and [H, N], as in `code_sums`.
        cluster_size: N [H, K].
        embedding_sum: m [H, K, D].
        decay: γ.

    Returns: the new N and m, in their dtypes, without a gradient. A head without a valid vector keeps its
    averages. A code
        whose sum exceeds the range of float32 takes none of its vectors.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_axes("x", x, "[H, N, D]")
    check_axes("embedding_sum", embedding_sum, "[H, K, D]")
    check_floating(x=x, cluster_size=cluster_size, embedding_sum=embedding_sum)
    check_indices(x, indices)
    check_device(x=x, cluster_size=cluster_size, embedding_sum=embedding_sum)
    for axis, name in ((0, "heads"), (2, "channels")):
        check_equal(name, "x", x.shape[axis], "embedding_sum", embedding_sum.shape[axis])
    if cluster_size.shape != embedding_sum.shape[:2]:
        shape, expected = tuple(cluster_size.shape), tuple(embedding_sum.shape[:2])
        raise ValueError(
            f"cluster_size has shape {shape}, expected {expected}, embedding_sum's shape without its last axis"
        )
    tensors = undifferentiated(x, indices, cluster_size, embedding_sum)
    new_size, new_sum = _ema_code_sums(*tensors, number(decay, *tensors))
    return new_size, new_sum


@registered("code_sums")
def _code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    return CODE_SUMS.run(x, indices, codebook_size)


@_code_sums.register_fake
def _(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    heads, _, dim = x.shape
    dtype = compute_dtype(x)
    return x.new_empty(heads, codebook_size, dtype=dtype), x.new_empty(heads, codebook_size, dim, dtype=dtype)


def _save_sums(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    x, indices, _ = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(indices)
    ctx.dtype = x.dtype


def _sums_backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[Tensor, None, None]:
    (indices,) = ctx.saved_tensors
    chosen = gradient.gather(1, indices.clamp(min=0)[..., None].expand(-1, -1, gradient.shape[-1]))
    return chosen.where((indices >= 0)[..., None], 0.0).to(ctx.dtype), None, None


_code_sums.register_autograd(_sums_backward, setup_context=_save_sums)
_code_sums.register_vmap(along(_code_sums, 0, 2, one_by_one(_code_sums)))


@registered("ema_code_sums")
def _ema_code_sums(
    x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    return EMA_CODE_SUMS.run(x, indices, cluster_size, embedding_sum, decay)


@_ema_code_sums.register_fake
def _(
    x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(cluster_size), torch.empty_like(embedding_sum)


_ema_code_sums.register_without_gradient()
_ema_code_sums.register_vmap(along(_ema_code_sums, 0, 4, one_by_one(_ema_code_sums)))
