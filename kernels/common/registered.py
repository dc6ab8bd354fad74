"""Registration of an operation with PyTorch, and its direct call in eager mode."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.modes import runs_eagerly

Setup = Callable[[Any, Any, Any], None]


class Registered:
    """An operation of `torch.library`, for graphs, fake tensors and transforms.

    Eager mode calls the function itself: the dispatcher would run Python code for each of its keys, which takes as
    long as several of PyTorch's own operations.

    Args:
        name: "quantizers::" and the name of the operation.
        function: typed as `torch.library.custom_op` requires. Its results share no memory with its arguments.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.operation = torch.library.custom_op(name, function, mutates_args=())
        self.register_fake = self.operation.register_fake
        self.register_vmap = self.operation.register_vmap
        self._function = function
        self._differentiable: Callable[..., Any] = self.operation  # raises in the backward
        self._has_gradient = True

    def __call__(self, *arguments: Any) -> Any:
        tensors = _tensors(arguments)
        if not runs_eagerly(*tensors):
            return self.operation(*arguments)
        if self._has_gradient and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return self._differentiable(*arguments)
        with torch.no_grad():
            return self._function(*arguments)

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
        self.operation.register_autograd(backward, setup_context=setup_context)

    def register_without_gradient(self) -> None:
        """Mark every output as not differentiable, whatever the arguments require."""
        self._has_gradient = False
        self.operation.register_autograd(_no_gradients, setup_context=_mark_outputs)


def registered(name: str) -> Callable[[Callable[..., Any]], Registered]:
    """Decorate the function of an operation; see `Registered`."""
    return lambda function: Registered(name, function)


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among the arguments and in their lists."""
    found = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found += _tensors(argument)
    return found


def _mark_outputs(ctx: Any, inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
    ctx.count = len(inputs)


def _no_gradients(ctx: Any, *_: Any) -> tuple[None, ...]:
    count: int = ctx.count
    return (None,) * count
