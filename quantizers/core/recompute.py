"""Recognizes the second forward, which activation checkpointing runs during the backward pass.

In eager mode, this is a Python condition. A compiled graph may contain both forwards, or run as either of them;
there the condition is a tensor, computed by an operation when the graph runs.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.registered import registered


def is_recomputing(like: Tensor) -> bool | Tensor:
    """Whether a backward pass is running, which is the case when a checkpointed forward is recomputed.

    Returns: a bool; in a compiled graph, a 0-d bool tensor on the device of `like`. `choose` accepts both.
    """
    if not torch.compiler.is_compiling():
        return _backward_is_running()
    running: Tensor = _in_backward(like)
    return running


def choose(condition: bool | Tensor, value: Tensor, otherwise: Tensor) -> Tensor:
    """`value` if the condition is true, else `otherwise`; both have the same shape."""
    if isinstance(condition, Tensor):
        return torch.where(condition, value, otherwise)
    return value if condition else otherwise


def _backward_is_running() -> bool:
    return torch._C._current_graph_task_id() != -1


@registered("in_backward")
def _in_backward(like: Tensor) -> Tensor:
    return torch.full((), _backward_is_running(), device=like.device)


@_in_backward.register_fake
def _(like: Tensor) -> Tensor:
    return like.new_empty((), dtype=torch.bool)


_in_backward.register_without_gradient()
