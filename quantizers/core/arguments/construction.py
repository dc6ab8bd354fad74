"""The record of a constructor's call, from which `quantizers.configuration` is made."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch import distributed as dist
from typing_extensions import Self

from quantizers.core.arguments.checks import elements, plain
from quantizers.core.arguments.options import plain_arguments
from quantizers.core.gradients import GRADIENTS
from quantizers.core.regularizer import Regularizer


@dataclass(frozen=True)
class Unserializable:
    """Stands for an argument that JSON cannot represent, without keeping the argument itself alive."""

    description: str


@dataclass(frozen=True)
class Construction:
    """A call of a class, with its arguments as `to_serializable` converts them."""

    of: Any  # a class of quantizers
    positional: tuple[Any, ...]
    named: dict[str, Any]


class RecordedConstruction:
    """A class whose instances record the arguments that they were constructed with."""

    assignable: ClassVar[tuple[str, ...]] = (
        "channel_dim",
        "commitment_weight",
        "codebook_weight",
        "decay",
        "dropout",
        "entropy_weight",
        "kl_weight",
        "temperature",
    )
    """Numbers that may be assigned after construction; a configuration contains their current values."""

    _construction: Construction

    def _options_in_state(self) -> dict[str, Any]:
        """Options that may be tensors, which a state dict holds: what a configuration has instead of each.

        Also the options that the constructor reads off such a tensor where they are None.
        """
        return {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments of the outermost constructor."""
        new: Callable[..., Self] = super().__new__
        instance = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
        instance.__dict__["_construction"] = construction(cls, args, kwargs)
        return instance


def construction(of: Any, positional: tuple[object, ...], named: dict[str, object]) -> Construction:
    """The record of `of(*positional, **named)`. It can be copied and pickled whenever the quantizer can."""
    positional, named = plain_arguments(of.__init__, positional, named)
    return Construction(
        of,
        tuple(to_serializable(value) for value in positional),
        {name: to_serializable(value) for name, value in named.items()},
    )


def to_serializable(value: object) -> object:
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
        return Unserializable(describe(value))
    if (items := elements(value)) is not None:
        return [to_serializable(item) for item in items]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str.__str__(key): to_serializable(item) for key, item in value.items()}
    if isinstance(value, dist.ProcessGroup):
        return "world"
    for name, function in GRADIENTS.items():
        if value is function:
            return name
    return Unserializable(describe(value))


def describe(value: object) -> str:
    """The type of a value, followed by the name of a function or class: "Tensor", "function halved"."""
    kind, name = type(value).__name__, getattr(value, "__name__", None)
    return f"{kind} {name}" if name else kind
