"""The backward of the rotation trick: a registered operation."""

from collections.abc import Callable

from torch import Tensor

from quantizers.kernels.common.arguments import check_device, check_floating
from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.modes import is_differentiated_again, is_transformed
from quantizers.kernels.common.registered import registered
from quantizers.kernels.rotation import compiled, reference


def _import_rotate_grad() -> Callable[..., Tensor]:
    from quantizers.kernels.rotation.triton import rotate_grad

    return rotate_grad


ROTATE_GRAD = Operation(
    name="rotate_grad",
    reference=reference.rotate_grad,
    compiled=compiled.rotate_grad,
    import_triton=_import_rotate_grad,
)


def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ Rᵀ g, the backward of the rotation trick (Fifty et al. 2024, §4.2), by equations (1) to (5).

    Args: [..., D] each, of floating dtype; `x` is the encoder's vector, `quantized` its code.

    Returns: [..., D] in the gradient's dtype, of norm λ‖g‖ with 1/100 ≤ λ ≤ 100 for all finite vectors; g itself
        if x or its code is zero. It is linear in g, with x and its code constant: differentiating this backward
        gives a gradient of g only.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_floating(gradient=gradient, x=x, quantized=quantized)
    check_device(gradient=gradient, x=x, quantized=quantized)
    if not gradient.shape == x.shape == quantized.shape:
        shapes = [tuple(tensor.shape) for tensor in (gradient, x, quantized)]
        raise ValueError(f"gradient, x and quantized have shapes {shapes}, expected one shape")
    differentiable = is_transformed() or (is_differentiated_again() and gradient.requires_grad)
    rotated = reference.rotate_grad if differentiable else _rotate_grad
    result: Tensor = rotated(gradient, x.detach(), quantized.detach())
    return result


@registered("rotate_grad")
def _rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    return ROTATE_GRAD.run(gradient, x, quantized)


@_rotate_grad.register_fake
def _(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape)


_rotate_grad.register_without_gradient()
