"""Rules of `torch.vmap` for registered operations: one call with a longer axis, or one call per sample."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Rule = Callable[..., tuple[Any, Any]]
"""(info, in_dims, *arguments) → the outputs, and the axis of the samples in each, as for `register_vmap`."""


def one_by_one(operation: Callable[..., Any]) -> Rule:
    """Return a rule with one call per sample, for an operation whose result depends on all rows together."""

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        calls = [operation(*_sample(arguments, in_dims, index)) for index in range(info.batch_size)]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        stacked = tuple(torch.stack(outputs) for outputs in zip(*calls, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


def along(operation: Callable[..., Any], axis: int, count: int, otherwise: Rule) -> Rule:
    """Return a rule with one call, with the samples joined along an axis of the first `count` arguments and all
    outputs.

    `otherwise` is the rule if a later argument differs between samples.
    """

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        if any(dim is not None for dim in pytree.tree_leaves(list(in_dims[count:]))):
            return otherwise(info, in_dims, *arguments)
        tensors = zip(arguments[:count], in_dims[:count], strict=True)
        joined = [
            _leading(value, dim, info.batch_size).movedim(0, axis).flatten(axis, axis + 1)
            for value, dim in tensors
        ]
        outputs = operation(*joined, *arguments[count:])
        if isinstance(outputs, Tensor):
            return _split_axis(outputs, axis, info.batch_size), axis
        return tuple(_split_axis(output, axis, info.batch_size) for output in outputs), (axis,) * len(outputs)

    return rule


def _sample(arguments: Sequence[Any], in_dims: Sequence[Any], index: int) -> list[Any]:
    """Return the arguments of one sample; a list of tensors has a list of axes."""
    return [
        _sample(value, dim, index)
        if isinstance(dim, (list, tuple))
        else value
        if dim is None
        else value.select(dim, index)
        for value, dim in zip(arguments, in_dims, strict=True)
    ]


def _split_axis(output: Tensor, axis: int, size: int) -> Tensor:
    """Split an axis of joined samples in two, with the sample axis first."""
    return torch.unflatten(output, axis, (size, output.shape[axis] // size))


def _leading(value: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the samples to the first axis; expand a tensor that is the same for all samples."""
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
