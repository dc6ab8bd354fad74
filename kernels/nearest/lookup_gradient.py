"""The gradients of `nearest_lookup`: registered operations, and forms that PyTorch differentiates."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.registered import registered
from quantizers.kernels.nearest import compiled, reference
from quantizers.kernels.sums.operation import code_sums


def _import_lookup_vector_gradient() -> Callable[..., Tensor]:
    from quantizers.kernels.nearest.triton.lookup_gradient import lookup_vector_gradient

    return lookup_vector_gradient


def _import_lookup_codebook_gradient() -> Callable[..., Tensor]:
    from quantizers.kernels.nearest.triton.lookup_gradient import lookup_codebook_gradient

    return lookup_codebook_gradient


LOOKUP_VECTOR_GRADIENT = Operation(
    name="lookup_vector_gradient",
    reference=reference.lookup_vector_gradient,
    compiled=compiled.lookup_vector_gradient,
    import_triton=_import_lookup_vector_gradient,
    without_float64="reference",
)
LOOKUP_CODEBOOK_GRADIENT = Operation(
    name="lookup_codebook_gradient",
    reference=reference.lookup_codebook_gradient,
    compiled=compiled.lookup_codebook_gradient,
    import_triton=_import_lookup_codebook_gradient,
)


def differentiable_vector_gradient(
    loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float
) -> Tensor:
    """As `vector_gradient`, in differentiable operations. The codes are constants in this term of the loss."""
    pull = 2 * weight * loss_gradient[..., None] * (x.to(codes.dtype) - codes.detach())
    return pull.where((indices >= 0)[..., None], 0.0).to(x.dtype)


def differentiable_codebook_gradient(
    codes_gradient: Tensor | None,
    loss_gradient: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    weight: float,
    codebook_size: int,
) -> Tensor:
    """As `codebook_gradient`, in differentiable operations. The vectors are constants in this term of the
    loss."""
    push = 2 * weight * loss_gradient[..., None] * (codes - x.detach().to(codes.dtype))
    return code_sums(push if codes_gradient is None else push + codes_gradient, indices, codebook_size)[1]


@registered("lookup_vector_gradient")
def vector_gradient(loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float) -> Tensor:
    return LOOKUP_VECTOR_GRADIENT.run(loss_gradient, x, codes, indices, weight)


@vector_gradient.register_fake
def _(loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float) -> Tensor:
    return x.new_empty(x.shape)


@registered("lookup_codebook_gradient")
def codebook_gradient(
    codes_gradient: Tensor | None,
    loss_gradient: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    weight: float,
    codebook_size: int,
) -> Tensor:
    return LOOKUP_CODEBOOK_GRADIENT.run(codes_gradient, loss_gradient, x, codes, indices, weight, codebook_size)


@codebook_gradient.register_fake
def _(codes_gradient: Tensor | None, loss_gradient: Tensor, x: Tensor, codes: Tensor, *rest: Any) -> Tensor:
    return codes.new_empty(codes.shape[0], rest[-1], codes.shape[2])
