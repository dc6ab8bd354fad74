"""What PyTorch does with the operations that run: it differentiates or maps them, or it writes a graph of them."""

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._subclasses.fake_tensor import is_fake
from torch.autograd import forward_ad


def is_transformed() -> bool:
    """Whether `torch.func` (grad, jvp, vmap and what is made of them) or forward-mode differentiation is at work.

    Both need operations of PyTorch's own. What a registered operation finds without a gradient they take as it is.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def _is_traced() -> bool:
    traced: bool = torch._C._is_tracing()
    return traced


def derivatives() -> int:
    """How many times `torch.func` and forward-mode differentiation differentiate what is computed."""
    if not is_transformed():
        return 0
    kinds = [level.key() for level in torch._C._functorch.get_interpreter_stack() or []]
    of_func = sum(kind in (TransformType.Grad, TransformType.Jvp) for kind in kinds)
    return of_func + (forward_ad._current_level >= 0 and TransformType.Jvp not in kinds)


def has_values(tensor: Tensor) -> bool:
    """Whether a branch on a value is possible.

    There is none on the meta device, under FakeTensorMode and for `torch.func`, and graphs of `torch.compile`,
    `torch.export`, `torch.jit.trace` and CUDA are for any value.
    """
    if torch.compiler.is_compiling() or _is_traced():
        return False
    if tensor.is_meta or is_transformed() or is_fake(tensor):
        return False
    capturing: bool = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    return not capturing


def is_differentiated_again() -> bool:
    """Inside a backward: whether that is itself differentiated or mapped, as with `create_graph=True`."""
    return is_transformed() or (torch.is_grad_enabled() and not torch.compiler.is_compiling())


def leaves_library() -> bool:
    """Whether a graph is written that runs without this library: by `torch.jit.trace` or `torch.onnx.export`."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
    return _is_traced()


def undifferentiated(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors for an operation without a gradient; detached where a transform would differentiate it."""
    return tuple(tensor.detach() for tensor in tensors) if is_transformed() else tensors


def with_value(surrogate: Tensor, value: Tensor) -> Tensor:
    """`value`, bit for bit, with the derivatives of `surrogate` and its own, in PyTorch's own operations.

    Where the surrogate is not finite, it passes none.
    """
    zero = surrogate.detach() - surrogate
    return value - zero.where(zero == 0, 0.0).to(value.dtype)


def number(like: Tensor, value: float | Tensor) -> Tensor:
    """A number as a 0-d float64 tensor on `like`'s device, for an operation.

    A graph of `torch.compile` holds for one value of an operation's number: one that moves with each step of
    training would need a new graph each. In a product it becomes the graph's input. float64, as a Python number
    is; without axes, it changes no other tensor's dtype.
    """
    if torch.compiler.is_compiling() or isinstance(value, Tensor):
        return like.new_ones((), dtype=torch.float64) * value
    return like.new_full((), value, dtype=torch.float64)
