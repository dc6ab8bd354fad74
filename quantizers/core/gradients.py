"""How the decoder's gradient passes the quantizer: functions whose value is exactly the code.

A gradient function takes the encoder's vectors x [..., D] and their codes [..., D] and returns [..., D]. Its
value is the codes, bit for bit; what it does to the gradient is the method. What reaches `codes` is the
caller's choice: a code that is detached gets nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.dispatch import chosen_implementation, resume_implementation
from quantizers.kernels.modes import is_differentiated_again, is_transformed, leaves_library, with_value
from quantizers.kernels.ops.gradient import gradients_of
from quantizers.kernels.ops.rotation import rotate_grad
from quantizers.kernels.reference.rotation import LARGEST_RATIO, rotate
from quantizers.kernels.vectors import normalize

Gradient = Callable[[Tensor, Tensor], Tensor]
SCALE = 2.0**-16  # of sums over channels, so that none overflows up to 2³⁰ of them; exact down to 2⁻¹¹⁰
ALIKE = 2.0**-22  # ‖x̂ − q̂‖: float32 vectors of one direction are up to 2⁻²³ apart, by their own rounding


class _ExactValue(torch.autograd.Function):
    """The value of `codes`, the gradient to both arguments unchanged.

    Not `x + (codes - x).detach()`: that sum rounds, and is not the code.
    """

    @staticmethod
    def forward(x: Tensor, codes: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


class _Rotation(torch.autograd.Function):
    """The value of `codes`; to x goes λ Rᵀ g, to the codes g."""

    @staticmethod
    def forward(x: Tensor, codes: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.implementation = chosen_implementation()  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        with resume_implementation(ctx.implementation):  # type: ignore[attr-defined]
            return rotate_grad(gradient, x.detach(), codes.detach()), gradient


class _Reflection(torch.autograd.Function):
    """The value of `codes`; to x goes λ H g, to the codes g."""

    @staticmethod
    def forward(x: Tensor, codes: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        return _reflect(gradient, x.detach(), codes.detach()), gradient


def exact_value(surrogate: Tensor, codes: Tensor) -> Tensor:
    """The value of `codes` with the gradient of `surrogate` (and of the codes, where they are attached)."""
    if leaves_library() or is_transformed():
        return with_value(surrogate, codes)
    return _ExactValue.apply(surrogate, codes)  # type: ignore[no-any-return, no-untyped-call]


class _Refined(torch.autograd.Function):
    """The value and the first derivative of a surrogate; further ones are those of a function of the inputs."""

    @staticmethod
    def forward(function: Callable[..., Tensor], surrogate: Tensor, *inputs: Tensor) -> Tensor:
        return surrogate.view_as(surrogate)

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, _, *tensors = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        if not is_differentiated_again():
            return (None, gradient, *(None for _ in inputs))
        function, wanted = ctx.function, ctx.needs_input_grad[2:]  # type: ignore[attr-defined]
        return (None, None, *gradients_of(lambda *own: (function(*own),), inputs, wanted, (gradient,)))


def refined(surrogate: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """A surrogate whose gradient is that of function(*inputs), computed in a better way, at every order.

    The value and the first derivative are the surrogate's. Where PyTorch differentiates those again, or by
    `torch.func`, it differentiates the function.
    """
    if leaves_library() or torch.compiler.is_compiling():  # whose graphs have no second derivative
        return surrogate
    if is_transformed():
        return with_value(function(*inputs), surrogate.detach())
    return _Refined.apply(function, surrogate, *inputs)  # type: ignore[no-any-return, no-untyped-call]


def straight_through(x: Tensor, codes: Tensor) -> Tensor:
    """The gradient of x is the gradient of its code (van den Oord et al. 2017, §3.2)."""
    return exact_value(x, codes)


def rotation(x: Tensor, codes: Tensor) -> Tensor:
    """The rotation trick (Fifty et al. 2024, §4.2): the gradient of x is λ Rᵀ g.

    R rotates x's direction to its code's, λ = ‖code‖ / ‖x‖; both are held constant. The gradient stays finite
    and within 1/100 to 100 times ‖g‖: λ is clamped to that range; where x or its code is zero, so that there
    is no direction to rotate, it is g itself; where they point in opposite directions, so that the plane of
    rotation is undefined, R is the reflection along x. Derived in kernels/README.md, equations (6) to (10).
    """
    if leaves_library() or is_transformed():
        return exact_value(rotate(x, x.detach(), codes.detach()), codes)
    return _Rotation.apply(x, codes)  # type: ignore[no-any-return, no-untyped-call]


def reflection(x: Tensor, codes: Tensor) -> Tensor:
    """The reflection in place of the rotation (an option in the code of Fifty et al. 2024): x gets λ H g.

    H = I − 2 v vᵀ with v = (x̂ − q̂) / ‖x̂ − q̂‖ takes x's direction x̂ to its code's, q̂, as R does, and is its own
    inverse; λ = ‖code‖ / ‖x‖; both are held constant. Where R turns the plane of x and its code by their angle
    and is near the identity for a small one, H turns v round however small the angle is: R has a limit at x̂ = q̂,
    H has none. There, and below ‖x̂ − q̂‖ = 2⁻²², where v would be the rounding of float32 vectors, H is I. λ is
    clamped to [1/100, 100]; where x or its code is zero the gradient is g itself.
    """
    if leaves_library() or is_transformed():
        return exact_value(_reflect(x, x.detach(), codes.detach()), codes)  # H is its own transpose
    return _Reflection.apply(x, codes)  # type: ignore[no-any-return, no-untyped-call]


def _reflect(gradient: Tensor, x: Tensor, codes: Tensor) -> Tensor:
    """λ H g [..., D] of `reflection`, in the gradient's dtype; computed in float64, as that of the rotation."""
    g, x, q = gradient.double(), x.double(), codes.double()
    x_largest, q_largest = x.abs().amax(-1, keepdim=True), q.abs().amax(-1, keepdim=True)
    turns = (x_largest > 0) & (q_largest > 0)
    x, q = x / x_largest.where(turns, 1.0), q / q_largest.where(turns, 1.0)  # so that no square leaves float64
    x_norm, q_norm = (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) for vectors in (x, q))
    ratio = (q_largest / x_largest * (q_norm / x_norm)).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    gap = x / x_norm - q / q_norm
    length = torch.linalg.vector_norm(gap, dim=-1, keepdim=True)
    v = (gap / length).where(length >= ALIKE, 0.0)
    reflected = g - 2 * v * (v * g).sum(-1, keepdim=True)
    result: Tensor = (ratio * reflected).where(turns, g).to(gradient.dtype)
    return result


def error_along(x: Tensor, codes: Tensor, direction: Tensor) -> Tensor:
    """x + ‖codes − x‖ · sg[direction]: the length of the quantization error, on a direction of one's own.

    Args: x, codes: [..., D], both attached. direction: [..., D], of unit norm or zero.

    Returns: [..., D]. With d the error's own direction, zero where there is no error, and g the gradient that
        arrives, that of x is g − d (direction·g), and that of the codes d (direction·g). Both are finite for any
        finite vectors; the value is held within the dtype's range.
    """
    own = error_direction(x, codes).detach()
    error = SCALE * codes - SCALE * x
    length = refined((own * error).sum(-1, keepdim=True), _length, error)  # ‖error‖, and own is its gradient
    largest = torch.finfo(x.dtype).max
    return (x + direction.detach() * length / SCALE).clamp(-largest, largest)


def _length(vectors: Tensor) -> Tensor:
    """‖v‖ [..., 1] at any scale; all derivatives of a zero vector's are zero."""
    is_zero = (vectors == 0).all(-1, keepdim=True)
    direction = normalize(vectors.where(~is_zero, 1.0)).where(~is_zero, 0.0)
    return (direction * vectors).sum(-1, keepdim=True)


def error_direction(x: Tensor, codes: Tensor, noise: Tensor | None = None) -> Tensor:
    """(codes − x + noise) / ‖codes − x + noise‖ [..., D], at any scale; zero where the sum is."""
    half = 0.5 * codes - 0.5 * x
    return normalize(half if noise is None else half + 0.5 * noise)


class _Surrogate:
    """A caller's own function: its gradient, and the codes' exact value. A class, so that it pickles."""

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
    """The function of that name, or the caller's own with the codes' exact value put over it.

    Raises: ValueError for an unknown name.
    """
    if callable(gradient):
        return gradient if gradient in GRADIENTS.values() else _Surrogate(gradient)
    if not isinstance(gradient, str) or gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, expected one of {sorted(GRADIENTS)} or a function")
    return GRADIENTS[gradient]
