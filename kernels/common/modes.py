"""PyTorch's current mode: whether operations are differentiated, mapped by a transform, or recorded in a graph."""

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._subclasses.fake_tensor import is_fake
from torch.autograd import forward_ad

from quantizers.kernels.common.compat import is_exporting
from quantizers.kernels.common.wide import has_float64

_PLAIN = (Tensor, torch.nn.Parameter)


def is_transformed() -> bool:
    """Whether `torch.func` (grad, jvp, vmap and combinations) or forward-mode differentiation is active.

    Both need PyTorch's own operations. They treat results of a registered operation without a gradient as
    constants.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def _is_traced() -> bool:
    traced: bool = torch._C._is_tracing()
    return traced


def _has_mode() -> bool:
    """Whether a mode of PyTorch watches operations, or changes them, such as `with torch.device(...)`."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._len_torch_function_stack() > 0


def derivatives() -> int:
    """Return how many times `torch.func` and forward-mode differentiation differentiate the computation."""
    if not is_transformed():
        return 0
    kinds = [level.key() for level in torch._C._functorch.get_interpreter_stack() or []]
    of_func = sum(kind in (TransformType.Grad, TransformType.Jvp) for kind in kinds)
    return of_func + (forward_ad._current_level >= 0 and TransformType.Jvp not in kinds)


def has_values(tensor: Tensor) -> bool:
    """Whether a branch on a tensor's value is possible.

    It is not on the meta device, under FakeTensorMode, or under `torch.func`. Graphs of `torch.compile`,
    `torch.export`, `torch.jit.trace` and CUDA must be valid for any value.
    """
    if torch.compiler.is_compiling() or _is_traced():
        return False
    if tensor.is_meta or is_transformed() or is_fake(tensor):
        return False
    capturing: bool = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    return not capturing


def is_differentiated_again() -> bool:
    """Inside a backward: whether it is itself differentiated or mapped, for example with `create_graph=True`."""
    return is_transformed() or (torch.is_grad_enabled() and not torch.compiler.is_compiling())


def runs_eagerly(*tensors: Tensor) -> bool:
    """Whether a call with these tensors computes now: no graph, transform or mode watches, and all are plain."""
    if torch.compiler.is_compiling() or _is_traced() or is_transformed() or _has_mode():
        return False
    return all(map(_is_plain, tensors))


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is neither of a subclass, nor on a device without memory, nor mapped by
    `torch.autograd.grad(..., is_grads_batched=True)`.
    """
    if type(tensor) not in _PLAIN or tensor.is_meta:
        return False
    return not torch._C._functorch.is_legacy_batchedtensor(tensor)


def leaves_library() -> bool:
    """Whether the current graph must run without this library: `torch.jit.trace` or `torch.onnx.export`."""
    if torch.compiler.is_compiling():
        return is_exporting() and torch.onnx.is_in_onnx_export()
    return _is_traced()


def undifferentiated(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors for an operation without a gradient, detached if a transform would differentiate it."""
    return tuple(tensor.detach() for tensor in tensors) if is_transformed() else tensors


def with_value(surrogate: Tensor, value: Tensor) -> Tensor:
    """Return `value` bit for bit, with the derivatives of both `surrogate` and `value`, in PyTorch's own
    operations.

    A surrogate that is not finite contributes no derivative.
    """
    zero = surrogate.detach() - surrogate
    return value - zero.where(zero == 0, 0.0).to(value.dtype)


def number(value: float | Tensor, like: Tensor, *others: Tensor) -> Any:
    """Return a number as an argument of an operation on these tensors: itself in eager mode, else a 0-d tensor, in
    float64 if their device has it.

    A graph of `torch.compile` is specialized to the value of a number argument. A number that changes with each
    training step would need a new graph each time; as a tensor it becomes the graph's input. float64 matches a
    Python number, and a 0-d tensor does not change another tensor's dtype.
    """
    dtype = torch.float64 if has_float64(like.device) else torch.float32
    if torch.compiler.is_compiling() or isinstance(value, Tensor):
        return like.new_ones((), dtype=dtype) * value
    return value if runs_eagerly(like, *others) else like.new_full((), value, dtype=dtype)
