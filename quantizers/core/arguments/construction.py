"""What a quantizer was constructed with, kept so that `quantizers.configuration` can tell it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch import distributed as dist

from quantizers.core.arguments.checks import elements, plain
from quantizers.core.arguments.options import plain_arguments
from quantizers.core.gradients import GRADIENTS
from quantizers.core.regularizer import Regularizer


@dataclass(frozen=True)
class Unserializable:
    """Stands for an argument that JSON cannot tell; the argument itself is not kept alive by it."""

    what: str


@dataclass(frozen=True)
class Construction:
    """A call of a class, its arguments as `kept` gives them."""

    of: Any  # a class of quantizers
    positional: tuple[Any, ...]
    named: dict[str, Any]


def construction(of: Any, positional: tuple[object, ...], named: dict[str, object]) -> Construction:
    """The record of `of(*positional, **named)`; it copies and pickles wherever what is built does."""
    positional, named = plain_arguments(of.__init__, positional, named)
    return Construction(
        of, tuple(map(serializable, positional)), {name: serializable(value) for name, value in named.items()}
    )


def serializable(value: object) -> object:
    """An argument as numbers, strings, lists, dicts, modules, regularizers and `Unserializable`.

    A process group is "world": which ranks train together is a property of the run, not of the quantizer.
    """
    if isinstance(value, nn.Module | Regularizer):
        return value
    if not isinstance(value, enum.Enum) or isinstance(value, str | int | float):
        value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | Tensor):
        return Unserializable(named_kind(value))
    if (parts := elements(value)) is not None:
        return [serializable(part) for part in parts]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str.__str__(key): serializable(part) for key, part in value.items()}
    if isinstance(value, dist.ProcessGroup):
        return "world"
    for name, function in GRADIENTS.items():
        if value is function:
            return name
    return Unserializable(named_kind(value))


def named_kind(value: object) -> str:
    """What a value is, in words: a function or class by its name, anything else by its type."""
    kind, name = type(value).__name__, getattr(value, "__name__", None)
    return f"{kind} {name}" if name else kind
