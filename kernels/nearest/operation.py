"""The nearest code: registered operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_codebook
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation, chosen_implementation, resume_implementation
from quantizers.kernels.common.modes import (
    is_differentiated_again,
    is_transformed,
    leaves_library,
    number,
    undifferentiated,
    with_value,
)
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest import blocked, compiled, exported, reference
from quantizers.kernels.nearest.lookup_gradient import (
    codebook_gradient,
    differentiable_codebook_gradient,
    differentiable_vector_gradient,
    vector_gradient,
)

Number = float | Tensor


def _import_nearest_code() -> Callable[..., tuple[Tensor, Tensor]]:
    from quantizers.kernels.nearest.triton.nearest import nearest_code

    return nearest_code


def _import_nearest_lookup() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    from quantizers.kernels.nearest.triton.nearest import nearest_lookup

    return nearest_lookup


NEAREST_CODE = Operation(
    name="nearest_code",
    reference=reference.nearest_code,
    blocked=blocked.nearest_code,
    compiled=compiled.nearest_code,
    import_triton=_import_nearest_code,
    without_float64="blocked",
)
NEAREST_LOOKUP = Operation(
    name="nearest_lookup",
    reference=reference.nearest_lookup,
    blocked=blocked.nearest_lookup,
    compiled=compiled.nearest_lookup,
    import_triton=_import_nearest_lookup,
    without_float64="blocked",
)


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of each vector in Euclidean distance: the smallest ½‖e‖² − x·e in exact arithmetic.

    Under `torch.set_float32_matmul_precision("highest")`, the default, the index is exact on every device, by the
    certificate of kernels/nearest/README.md. "high" and "medium" leave out the certificate on a GPU, where scores
    are those of centred vectors in float16 (the README has the error rates). On a CPU they have no effect. For
    cosine similarity, pass both arguments through `quantizers.kernels.common.vectors.normalize` first.

    Args:
        x: [H, N, D] vectors: float16, bfloat16, float32 or float64, each exact in its own values.
        codebook: [H, K, D] codes, K ≥ 1. A code that is not finite is never chosen.

    Returns:
        indices: [H, N] int64, the lowest of equally near codes; −1 for a vector that is not finite.
        squared_distance: [H, N], Σ(x − e)² in float32 (float64 if an input is float64); NaN where the index is −1.
            It has no gradient; use `nearest_lookup` for one.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_codebook(x, codebook)
    search = exported.nearest_code if leaves_library() else _nearest_code
    indices, distance = search(*undifferentiated(x, codebook))
    return indices, distance


def nearest_lookup(
    x: Tensor, codebook: Tensor, vector_weight: float = 1.0, code_weight: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest code of each vector, its index, and the VQ loss of van den Oord et al. 2017, equation 3.

    Args:
        x, codebook: as in `nearest_code`.
        vector_weight: weight of ‖x − sg[e]‖², which moves the vectors.
        code_weight: weight of ‖sg[x] − e‖², which moves the codes.

    Returns:
        codes: [H, N, D], float32 (float64 if an input is float64); zero where the index is −1. Differentiable in
            the codebook: a code receives the sum of the gradients of its vectors.
        indices: [H, N] int64, as in `nearest_code`.
        loss: [H, N], in the codes' dtype: the weighted sum of the two squared distances, over channels; zero where
            the index is −1.

    Raises: the errors of `nearest_code`.
    """
    check_codebook(x, codebook)
    weights = number(vector_weight, x, codebook), number(code_weight, x, codebook)
    if leaves_library():
        indices, _, _ = exported.nearest_lookup(x.detach(), codebook.detach())
        codes, loss = _looked_up(x, codebook, indices, *weights)
        return codes, indices, loss
    if is_transformed():
        _, indices, value = _nearest_lookup(x.detach(), codebook.detach(), *weights)
        codes, loss = _looked_up(x, codebook, indices, *weights)
        return codes, indices, with_value(loss, value)
    codes, indices, loss = _nearest_lookup(x, codebook, *weights)
    return codes, indices, loss


def _looked_up(
    x: Tensor, codebook: Tensor, indices: Tensor, vector_weight: Tensor, code_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the codes and loss of `nearest_lookup` for given indices, in operations that PyTorch
    differentiates."""
    dtype = compute_dtype(x, codebook)
    x, codes = x.to(dtype), exported.chosen_codes(codebook, indices).to(dtype)
    to_vectors, to_codes = (x - codes.detach()).square().sum(-1), (x.detach() - codes).square().sum(-1)
    terms = ((vector_weight, to_vectors), (code_weight, to_codes))
    # A distance may be infinite, and a loss without weight is zero for all that.
    first, second = ((weight * term).where((indices >= 0) & (weight != 0), 0.0) for weight, term in terms)
    return codes, first + second


@registered("nearest_code")
def _nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return NEAREST_CODE.run(x, codebook)


@_nearest_code.register_fake
def _(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty(x.shape[:2], dtype=compute_dtype(x, codebook)),
    )


_nearest_code.register_without_gradient()
_nearest_code.register_vmap(along(_nearest_code, 1, 1, along(_nearest_code, 0, 2, one_by_one(_nearest_code))))


@registered("nearest_lookup")
def _nearest_lookup(
    x: Tensor, codebook: Tensor, vector_weight: Tensor, code_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    indices, codes, distance = NEAREST_LOOKUP.run(x, codebook)
    weight = vector_weight + code_weight
    # A distance may be infinite, and a loss without weight is zero for all that.
    if isinstance(weight, Tensor):
        return codes, indices, weight * distance.where((indices >= 0) & (weight != 0), 0.0)
    if not weight:
        return codes, indices, distance.zero_()
    return (
        codes,
        indices,
        distance.nan_to_num_(nan=0.0, posinf=torch.inf).mul_(weight),
    )  # NaN where there is no code


@_nearest_lookup.register_fake
def _(x: Tensor, codebook: Tensor, vector_weight: Tensor, code_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x, codebook)
    return (
        x.new_empty(x.shape, dtype=dtype),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty(x.shape[:2], dtype=dtype),
    )


def _save_lookup(
    ctx: Any, inputs: tuple[Tensor, Tensor, Number, Number], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, codebook, *weights = inputs
    codes, indices, _ = output
    ctx.mark_non_differentiable(indices)
    ctx.set_materialize_grads(False)
    # The codes, not the codebook: an update between forward and backward (EMA) must not change the gradient.
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    ctx.save_for_backward(x, codes, indices, *tensors)
    ctx.weights = None if tensors else weights
    ctx.size, ctx.dtype = codebook.shape[1], codebook.dtype
    ctx.implementation = chosen_implementation()


def _lookup_backward(
    ctx: Any, codes_gradient: Tensor | None, _: Tensor | None, loss_gradient: Tensor | None
) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, codes, indices, *weights = ctx.saved_tensors
    vector_weight, code_weight = ctx.weights or weights
    if loss_gradient is None:
        loss_gradient = codes.new_zeros(indices.shape)
    again = is_differentiated_again()
    to_vectors = differentiable_vector_gradient if again else vector_gradient
    to_codes = differentiable_codebook_gradient if again else codebook_gradient
    to_x = to_codebook = None
    with resume_implementation(ctx.implementation):
        if ctx.needs_input_grad[0]:
            gradient, weight = _scaled(loss_gradient, vector_weight)
            to_x = to_vectors(gradient, x, codes, indices, weight)
        if ctx.needs_input_grad[1]:
            gradient, weight = _scaled(loss_gradient, code_weight)
            to_codebook = to_codes(codes_gradient, gradient, x, codes, indices, weight, ctx.size).to(ctx.dtype)
    return to_x, to_codebook, None, None


def _scaled(gradient: Tensor, weight: Number) -> tuple[Tensor, float]:
    """Return a gradient and the number that an operation multiplies it by; a tensor is multiplied here."""
    return (gradient * weight, 1.0) if isinstance(weight, Tensor) else (gradient, float(weight))


_nearest_lookup.register_autograd(_lookup_backward, setup_context=_save_lookup)
_nearest_lookup.register_vmap(
    along(_nearest_lookup, 1, 1, along(_nearest_lookup, 0, 2, one_by_one(_nearest_lookup)))
)
