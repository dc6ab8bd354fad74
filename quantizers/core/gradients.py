"""How the decoder's gradient passes through the quantizer: functions whose value is exactly the code.

A gradient function takes the encoder's vectors x [..., D] and their codes [..., D] and returns [..., D]. Its value
is the codes, bit for bit; the functions differ in the gradient that they pass to x. The codes get the gradient
unchanged, unless the caller detaches them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_RATIO
from quantizers.kernels.common.dispatch import chosen_implementation, resume_implementation
from quantizers.kernels.common.gradient import gradients_of
from quantizers.kernels.common.modes import is_differentiated_again, is_transformed, leaves_library, with_value
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.common.wide import narrowed, wide
from quantizers.kernels.rotation.linear_map import rotate
from quantizers.kernels.rotation.operation import rotate_grad

# No `setup_context` below, which only `torch.func` needs: PyTorch inspects its signature in each call.
Gradient = Callable[[Tensor, Tensor], Tensor]
SCALE = 2.0**-16  # applied before sums over channels: up to 2³⁰ of them do not overflow; exact down to 2⁻¹¹⁰
SAME_DIRECTION = 2.0**-22  # bound on ‖x̂ − q̂‖: rounding puts float32 vectors of one direction up to 2⁻²³ apart


class _ExactValue(torch.autograd.Function):
    """Returns the value of `codes`, and passes the gradient unchanged to both arguments.

    The usual `x + (codes - x).detach()` rounds, and is not exactly the code.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor, codes: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


class _Rotation(torch.autograd.Function):
    """Returns the value of `codes`; x gets the gradient λ Rᵀ g, and the codes get g."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(x, codes)
        ctx.implementation = chosen_implementation()  # type: ignore[attr-defined]
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        with resume_implementation(ctx.implementation):  # type: ignore[attr-defined]
            return rotate_grad(gradient, x.detach(), codes.detach()), gradient


class _Reflection(torch.autograd.Function):
    """Returns the value of `codes`; x gets the gradient λ H g, and the codes get g."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(x, codes)
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        return _reflect(gradient, x.detach(), codes.detach()), gradient


def exact_value(surrogate: Tensor, codes: Tensor) -> Tensor:
    """The value of `codes` with the gradient of `surrogate`, and that of `codes` where they are not detached.

    Args: surrogate, codes: [..., D] each.

    Returns: [..., D], equal to `codes` bit for bit.
    """
    if leaves_library() or is_transformed():
        return with_value(surrogate, codes)
    return _ExactValue.apply(surrogate, codes)  # type: ignore[no-any-return, no-untyped-call]


class _Refined(torch.autograd.Function):
    """The value and the first derivative of a surrogate, and the higher derivatives of a function."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], surrogate: Tensor, *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return surrogate.view_as(surrogate)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        if not is_differentiated_again():
            return (None, gradient, *(None for _ in inputs))
        function, wanted = ctx.function, ctx.needs_input_grad[2:]  # type: ignore[attr-defined]
        return (None, None, *gradients_of(lambda *own: (function(*own),), inputs, wanted, (gradient,)))


def refined(surrogate: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """A surrogate of function(*inputs) that can be differentiated more than once.

    The surrogate has the function's value and gradient, computed in a better way (more accurately, or without a
    large matrix), but its second derivative would be wrong. So the value and the first derivative are those of the
    surrogate; where PyTorch differentiates again, or with `torch.func`, it differentiates the function.

    Args:
        surrogate: computed from `inputs`, with a gradient that is correct once.
        function: the definition in plain PyTorch operations, called with `inputs`.
        inputs: the tensors with respect to which the result is differentiated.

    Returns: a tensor with the value of `surrogate`.
    """
    if leaves_library() or torch.compiler.is_compiling():  # their graphs have no second derivative
        return surrogate
    if is_transformed():
        return with_value(function(*inputs), surrogate.detach())
    return _Refined.apply(function, surrogate, *inputs)  # type: ignore[no-any-return, no-untyped-call]


def straight_through(x: Tensor, codes: Tensor) -> Tensor:
    """Straight-through estimator: the gradient of x is the gradient of its code.

        >>> import torch, quantizers
        >>> x, code = torch.tensor([0.5, 1.0], requires_grad=True), torch.tensor([0.0, 2.0])
        >>> quantizers.straight_through(x, code).backward(torch.tensor([1.0, 3.0]))
        >>> x.grad
        tensor([1., 3.])

    van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017 (arXiv 1711.00937), §3.2.

    Args: x: the encoder's vectors [..., D]; codes: their codes, [..., D].

    Returns: [..., D], equal to `codes` bit for bit.
    """
    return exact_value(x, codes)


def rotation(x: Tensor, codes: Tensor) -> Tensor:
    """The rotation trick: the gradient of x is λ Rᵀ g, where g is the gradient of its code.

    R rotates the direction x̂ of x to the direction q̂ of its code, and λ = ‖code‖ / ‖x‖; both are held constant.
    With w = (x̂ + q̂) / ‖x̂ + q̂‖,

        R = I − 2wwᵀ + 2q̂x̂ᵀ,    λRᵀg = λ (g − 2w (w·g) + 2x̂ (q̂·g)).

    These are equations (1) to (3) of kernels/rotation/README.md. The gradient is always finite, and its norm is
    between 1/100 and 100 times ‖g‖:

    - λ is clamped to [1/100, 100], equation (4).
    - Where x or its code is zero, there is no direction to rotate, and the gradient is g.
    - Where they point in opposite directions, the plane of rotation is undefined, and R is the reflection along x,
      equation (5).

        >>> import torch, quantizers
        >>> x, code = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0.0, 2.0])
        >>> quantizers.rotation(x, code).backward(torch.tensor([0.0, 1.0]))  # the gradient is along the code
        >>> x.grad  # so it is along x here, and twice as long, as the code is
        tensor([2., 0.])

    Fifty, Junkins, Duan, Iyengar, Liu, Amid, Thrun, Ré: Restructuring Vector Quantization with the Rotation Trick,
    2024 (arXiv 2410.06424), §4.2.

    Args: x: the encoder's vectors [..., D]; codes: their codes, [..., D].

    Returns: [..., D], equal to `codes` bit for bit. The gradient is computed in float64.
    """
    if leaves_library() or is_transformed():
        return exact_value(rotate(x, x.detach(), codes.detach()), codes)
    return _Rotation.apply(x, codes)  # type: ignore[no-any-return, no-untyped-call]


def reflection(x: Tensor, codes: Tensor) -> Tensor:
    """A reflection instead of a rotation: the gradient of x is λ H g, where g is the gradient of its code.

    H = I − 2vvᵀ with v = (x̂ − q̂) / ‖x̂ − q̂‖ maps the direction x̂ of x to the direction q̂ of its code, as the
    rotation R does, and is its own inverse; λ = ‖code‖ / ‖x‖. Both are held constant.

    R turns the plane of x and its code by the angle between them, so it approaches the identity for small angles.
    H reverses v however small the angle is, so it has no limit at x̂ = q̂. There, and wherever ‖x̂ − q̂‖ < 2⁻²², where
    v would be the rounding error of float32 vectors, H is the identity. λ is clamped to [1/100, 100]. Where x or
    its code is zero, the gradient is g.

        >>> import torch, quantizers
        >>> x, code = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0.0, 2.0])
        >>> quantizers.reflection(x, code).backward(torch.tensor([0.0, 1.0]))
        >>> x.grad.round(decimals=3)
        tensor([2., 0.])

    An option in the code of Fifty et al. 2024 (arXiv 2410.06424).

    Args: x: the encoder's vectors [..., D]; codes: their codes, [..., D].

    Returns: [..., D], equal to `codes` bit for bit. The gradient is computed in float64.
    """
    if leaves_library() or is_transformed():
        return exact_value(_reflect(x, x.detach(), codes.detach()), codes)  # H is its own transpose
    return _Reflection.apply(x, codes)  # type: ignore[no-any-return, no-untyped-call]


def _reflect(gradient: Tensor, x: Tensor, codes: Tensor) -> Tensor:
    """λ H g [..., D] of `reflection`, in the gradient's dtype; computed in float64, like that of the rotation."""
    g, x, q = wide(gradient), wide(x), wide(codes)
    x_largest, q_largest = x.abs().amax(-1, keepdim=True), q.abs().amax(-1, keepdim=True)
    nonzero = (x_largest > 0) & (q_largest > 0)
    x, q = x / x_largest.where(nonzero, 1.0), q / q_largest.where(nonzero, 1.0)  # so that no square leaves float64
    x_norm, q_norm = (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) for vectors in (x, q))
    ratio = (q_largest / x_largest * (q_norm / x_norm)).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    gap = x / x_norm - q / q_norm
    length = torch.linalg.vector_norm(gap, dim=-1, keepdim=True)
    v = (gap / length).where(length >= SAME_DIRECTION, 0.0)
    reflected = g - 2 * v * (v * g).sum(-1, keepdim=True)
    return narrowed((ratio * reflected).where(nonzero, g), gradient.dtype, gradient.device)


def error_along(x: Tensor, codes: Tensor, direction: Tensor) -> Tensor:
    """x + ‖codes − x‖ · sg[direction]: a step of the length of the quantization error along another direction.

    With d the direction of the error itself (zero where there is no error) and g the gradient of the result, x
    gets the gradient g − d (direction·g), and the codes get d (direction·g). Both are finite for finite vectors.

    Args:
        x, codes: [..., D], neither of them detached.
        direction: [..., D], of unit norm or zero.

    Returns: [..., D], clamped to the range of the dtype.
    """
    own = error_direction(x, codes).detach()
    error = SCALE * codes - SCALE * x
    length = refined((own * error).sum(-1, keepdim=True), _length, error)  # ‖error‖; its gradient is `own`
    largest = torch.finfo(x.dtype).max
    return (x + direction.detach() * length / SCALE).clamp(-largest, largest)


def _length(vectors: Tensor) -> Tensor:
    """‖v‖ [..., 1] of vectors at any scale; at a zero vector all derivatives are zero."""
    is_zero = (vectors == 0).all(-1, keepdim=True)
    direction = normalize(vectors.where(~is_zero, 1.0)).where(~is_zero, 0.0)
    return (direction * vectors).sum(-1, keepdim=True)


def error_direction(x: Tensor, codes: Tensor, noise: Tensor | None = None) -> Tensor:
    """(codes − x + noise) / ‖codes − x + noise‖ [..., D], at any scale; zero where the numerator is zero."""
    half = 0.5 * codes - 0.5 * x
    return normalize(half if noise is None else half + 0.5 * noise)


class _Surrogate:
    """The gradient of a user's function with the exact value of the codes. It is a class so that it pickles."""

    def __init__(self, function: Gradient) -> None:
        self.function = function

    def __call__(self, x: Tensor, codes: Tensor) -> Tensor:
        surrogate = self.function(x, codes)
        if surrogate.shape != x.shape:
            raise ValueError(
                f"gradient function returned shape {tuple(surrogate.shape)}, expected x's {tuple(x.shape)}"
            )
        return exact_value(surrogate, codes.detach())


GRADIENTS: dict[str, Gradient] = {
    "straight_through": straight_through,
    "rotation": rotation,
    "reflection": reflection,
}


def resolve_gradient(gradient: str | Gradient) -> Gradient:
    """The gradient function of that name, or the user's function with its value replaced by the codes.

    Raises: ValueError for an unknown name. A user's function that returns another shape than x's raises ValueError
        when it is called.
    """
    if callable(gradient):
        return gradient if gradient in GRADIENTS.values() else _Surrogate(gradient)
    if not isinstance(gradient, str) or gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, expected one of {sorted(GRADIENTS)} or a function")
    return GRADIENTS[gradient]
