"""The second forward that activation checkpointing runs inside the backward: found, and told from the first.

In eager mode that is a Python condition. A compiled graph may hold both forwards, or be run for either; there the
condition is a tensor, of an operation that looks when the graph runs.
"""

import torch
from torch import Tensor


def is_recomputing(like: Tensor) -> bool | Tensor:
    """Whether a backward pass is running, as it is when a checkpointed forward is computed again.

    Returns: a bool; in a compiled graph a 0-d bool tensor on `like`'s device. Either goes into `choose`.
    """
    return _in_backward(like) if torch.compiler.is_compiling() else _backward_is_running()


def choose(condition: bool | Tensor, value: Tensor, otherwise: Tensor) -> Tensor:
    """`value` where the condition holds, else `otherwise`, of one shape."""
    if isinstance(condition, Tensor):
        return torch.where(condition, value, otherwise)
    return value if condition else otherwise


def _backward_is_running() -> bool:
    return torch._C._current_graph_task_id() != -1


@torch.library.custom_op("quantizers::in_backward", mutates_args=())
def _in_backward(like: Tensor) -> Tensor:
    return torch.full((), _backward_is_running(), device=like.device)


@_in_backward.register_fake
def _(like: Tensor) -> Tensor:
    return like.new_empty((), dtype=torch.bool)
