"""How `torch.vmap` maps registered operations: by one call with a longer axis, or by a call for each sample."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Rule = Callable[..., tuple[Any, Any]]
"""(info, in_dims, *arguments) → the outputs, and the axis of the samples in each: as of `register_vmap`."""


def one_by_one(operation: Callable[..., Any]) -> Rule:
    """A call for each sample: for an operation whose result is of all its rows together."""

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        calls = [operation(*_sample(arguments, in_dims, place)) for place in range(info.batch_size)]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        stacked = tuple(torch.stack(parts) for parts in zip(*calls, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


def along(operation: Callable[..., Any], axis: int, count: int, otherwise: Rule) -> Rule:
    """One call, the samples side by side on an axis that the first `count` arguments and all outputs have.

    `otherwise` is the rule where a later argument differs between samples.
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
            return _apart(outputs, axis, info.batch_size), axis
        return tuple(_apart(output, axis, info.batch_size) for output in outputs), (axis,) * len(outputs)

    return rule


def _sample(arguments: Sequence[Any], in_dims: Sequence[Any], place: int) -> list[Any]:
    """The arguments of one sample; a list of tensors has a list of axes."""
    return [
        _sample(value, dim, place)
        if isinstance(dim, list | tuple)
        else value
        if dim is None
        else value.select(dim, place)
        for value, dim in zip(arguments, in_dims, strict=True)
    ]


def _apart(output: Tensor, axis: int, size: int) -> Tensor:
    """An axis of samples side by side as two, the samples' own first."""
    return torch.unflatten(output, axis, (size, output.shape[axis] // size))


def _leading(value: Tensor, dim: int | None, size: int) -> Tensor:
    """A tensor with the samples on its first axis, the same for all where it has none."""
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
