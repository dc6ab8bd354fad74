"""Registration of an operation with PyTorch, and its direct call in eager mode."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common import compat
from quantizers.kernels.common.modes import runs_eagerly

NAMESPACE = "quantizers"
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]

Setup = Callable[[Any, Any, Any], None]


class Registered:
    """An operation of `torch.library`, for graphs, fake tensors and transforms.

    Eager mode calls the function itself: the dispatcher would run Python code for each of its keys, which takes as
    long as several of PyTorch's own operations. `torch.library.custom_op` would check the results' memory in each
    call, and import PyTorch's compiler in the first.

    Args:
        name: of the operation, within the namespace `quantizers`.
        function: typed as `torch.library.infer_schema` requires. Its results share no memory with its arguments.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._qualified = f"{NAMESPACE}::{name}"
        schema, tags = name + compat.infer_schema(function), (torch.Tag.pt2_compliant_tag,)
        LIBRARY.define(schema, tags=tags)  # type: ignore[no-untyped-call]
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        self.operation = getattr(getattr(torch.ops, NAMESPACE), name).default
        self._function = function
        self._setup_context: Setup = _save_nothing
        self._backward: Callable[..., Any] = self._missing_backward
        self._differentiable: Callable[..., Any] = self.operation
        self._has_gradient = True
        compat.register_autograd(
            self._qualified,
            lambda ctx, *gradients: self._backward(ctx, *gradients),
            lambda ctx, inputs, output: self._setup_context(ctx, inputs, output),
            LIBRARY,
        )

    def __call__(self, *arguments: Any) -> Any:
        tensors = _tensors(arguments)
        if not runs_eagerly(*tensors):
            return self.operation(*arguments)
        if self._has_gradient and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return self._differentiable(*arguments)
        if not torch.is_grad_enabled():
            return self._function(*arguments)
        with torch.no_grad():
            return self._function(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate the function that returns empty results of the right shapes and dtypes."""
        torch.library.register_fake(self._qualified, function, lib=LIBRARY)
        return function

    def register_vmap(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Register, or decorate, a rule of `torch.vmap`; see `quantizers.kernels.common.batching`."""
        compat.register_vmap(self._qualified, rule, LIBRARY)
        return rule

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Setup) -> None:
        """Register the derivative, as `torch.library.register_autograd` does."""
        function = self._function

        class Differentiable(torch.autograd.Function):
            # PyTorch inspects the signature in each call if `setup_context` is a method of its own.
            @staticmethod
            def forward(ctx: Any, *arguments: Any) -> Any:
                output = function(*arguments)
                setup_context(ctx, arguments, output)
                return output

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> Any:
                return backward(ctx, *gradients)

        self._differentiable = Differentiable.apply
        self._backward, self._setup_context = backward, setup_context

    def register_without_gradient(self) -> None:
        """Mark every output as not differentiable, whatever the arguments require."""
        self._has_gradient = False
        self._backward, self._setup_context = _no_gradients, _mark_outputs

    def _missing_backward(self, ctx: Any, *_: Any) -> None:
        raise RuntimeError(f"{self._qualified} has no derivative")


def registered(name: str) -> Callable[[Callable[..., Any]], Registered]:
    """Decorate the function of an operation; see `Registered`."""
    return lambda function: Registered(name, function)


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among the arguments and in their lists."""
    found = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            found.append(argument)
        elif isinstance(argument, (list, tuple)):
            found += _tensors(argument)
    return found


def _save_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def _mark_outputs(ctx: Any, inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
    ctx.count = len(inputs)


def _no_gradients(ctx: Any, *_: Any) -> tuple[None, ...]:
    count: int = ctx.count
    return (None,) * count
