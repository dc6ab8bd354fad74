"""Checks of arguments: numbers, names and sequences according to their annotations, and tensors.

Options often come from a configuration system, as NumPy numbers, 0-d tensors, members of an enumeration, or its
own sequence types. A check accepts every form of the expected value and returns it as a plain int, float, bool,
str or tuple. Otherwise it raises an error that names the argument, the value, and what was expected.
"""

import enum
import math
import numbers
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

LONGEST = 120  # characters of a value in an error


@dataclass(frozen=True)
class Bounds:
    """Annotates a number with the accepted values, in words and as a predicate that sees infinity and NaN too."""

    expected: str
    accepts: Callable[[Any], bool] = field(repr=False)


INTEGER = Bounds("an integer", lambda value: True)
NUMBER = Bounds("a number", lambda value: True)
FROM_ONE = Bounds("an integer of at least 1", lambda value: value >= 1)
INT64 = Bounds("an integer of int64, below 2**63", lambda value: value < 2**63)

Size = Annotated[int, FROM_ONE, INT64]
Count = Annotated[int, Bounds("an integer of at least 0", lambda value: value >= 0)]
Level = Annotated[int, Bounds("an integer of at least 2", lambda value: value >= 2)]
Weight = Annotated[float, Bounds("a finite number of at least 0", lambda value: 0 <= value < math.inf)]
FromZero = Annotated[float, Bounds("a number of at least 0", lambda value: value >= 0)]
Positive = Annotated[float, Bounds("a number above 0", lambda value: value > 0)]
FinitePositive = Annotated[float, Bounds("a finite number above 0", lambda value: 0 < value < math.inf)]
Finite = Annotated[float, Bounds("a finite number", math.isfinite)]
Share = Annotated[float, Bounds("a number in [0, 1]", lambda value: 0 <= value <= 1)]
Probability = Annotated[float, Bounds("a probability", lambda value: 0 <= value <= 1)]

Check = Callable[[str, object], Any]
"""Takes the name of an argument and its value; returns the value as a plain Python object, or raises an error."""


def check_for(annotation: Any) -> Check | None:
    """The check for an annotation: of numbers, booleans, names, modules, None, or sequences of these.

    For a union of names and something else, such as `str | Callable`, the check only converts a name to a plain
    string. Other annotations have no check. In both cases the function has to check the argument itself.
    """
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        base, *markers = arguments
        is_number = isinstance(markers[0], Bounds)
        return partial(_integer if base is int else _float, markers) if is_number else markers[0]
    if annotation is int:
        return check_integer
    if annotation is float:
        return partial(_float, [NUMBER])
    if annotation is bool:
        return _boolean
    if kind is Literal:
        return partial(_choice, arguments)
    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return partial(_instance, annotation)
    if kind in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        inner = check_for(next(each for each in arguments if each is not type(None)))
        return inner and partial(_optional, inner)
    if kind in (Union, types.UnionType) and any(each is str or get_origin(each) is Literal for each in arguments):
        return _name_or_other
    if kind is Sequence:
        inner = check_for(arguments[0])
        return inner and partial(_sequence, inner)
    return None


def plain(value: Any) -> Any:
    """A number, boolean or string of any library as a plain Python object; any other value unchanged."""
    if type(value) in (bool, int, float, str):
        return value  # the only case that torch.compile traces
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad and not value.is_meta:
        value = value.item()
    if isinstance(value, str):
        return str.__str__(value)  # str(value) would return the name of an enumeration's member
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, (numbers.Real, Decimal)):
        with suppress(OverflowError, ValueError):  # Fraction(10**400) is beyond the range of a float
            return float(value)
    return value


def elements(value: Any) -> list[Any] | None:
    """The elements of a sequence, an array or a list of modules; None for anything else, including a string."""
    if type(value) in (list, tuple, torch.Size):
        return list(value)
    if isinstance(value, np.ndarray | Tensor):
        return list(value) if value.ndim else None
    if isinstance(value, nn.ModuleList | nn.Sequential):
        return list(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return list(value)
    return None


def shown(value: object) -> str:
    """A value for an error: its `repr` on one line, or the beginning of a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… of type {type(value).__name__}"


def check_as(annotation: Any, name: str, value: object) -> Any:
    """`value` checked and converted according to an annotation, see `check_for`."""
    check: Check = check_for(annotation) or (lambda name, value: value)
    return check(name, value)


def check_at_least(name: str, value: object, least: int) -> int:
    """`value` as an int. Raises: ValueError unless it is an integer of at least `least`."""
    bounds = Bounds(f"an integer of at least {least}", lambda number: number >= least)
    return _integer([bounds], name, value)


def check_integer(name: str, value: object) -> int:
    """`value` as an int. Raises: ValueError unless it is an integer."""
    return _integer([INTEGER], name, value)


def check_size(name: str, value: object) -> tuple[int, ...]:
    """The sizes of several axes as ints. Raises: ValueError unless `value` is a sequence of integers."""
    return _sequence(check_integer, name, value)


def check_numbers(name: str, value: object) -> list[Any]:
    """A sequence of numbers, or of such sequences, as lists of floats. The caller checks their range.

    Raises: ValueError for anything else.
    """
    named = {f"{name}[{position}]": element for position, element in enumerate(_elements_of(name, value))}
    return [
        _float([NUMBER], inner, element) if elements(element) is None else check_numbers(inner, element)
        for inner, element in named.items()
    ]


def check_tensor(name: str, value: object) -> Tensor:
    """`value` unchanged. Raises: TypeError unless it is a dense tensor, with a hint how to make one."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_nested:
            raise TypeError(f"{name} has layout {value.layout}, expected a dense tensor")
        return value
    can_be_converted = isinstance(value, np.ndarray | np.generic | list | tuple | int | float)
    hint = f"; torch.as_tensor({name}) makes one" if can_be_converted else ""
    raise TypeError(f"{name} is of type {type(value).__name__}, expected a tensor{hint}")


def check_integers(what: str, values: Tensor) -> None:
    """Raises: TypeError, with a message that begins with `what`, unless `values` has an integer dtype."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{what} dtype {values.dtype}, expected an integer dtype")


def _integer(bounds: Sequence[Bounds], name: str, value: object) -> int:
    number = plain(value)
    is_integer = isinstance(number, (int, torch.SymInt)) and not isinstance(number, bool)  # SymInt: torch.compile
    return _within(bounds, name, value, number, is_integer)  # type: ignore[no-any-return]


def _float(bounds: Sequence[Bounds], name: str, value: object) -> float:
    """Accepts integers; a boolean is not a number."""
    number = plain(value)
    if isinstance(number, int) and not isinstance(number, bool):
        with suppress(OverflowError):  # beyond the range of a float
            number = float(number)
    return _within(bounds, name, value, number, isinstance(number, float))  # type: ignore[no-any-return]


def _within(bounds: Sequence[Bounds], name: str, value: object, number: Any, is_number: bool) -> Any:
    for each in bounds:
        if not is_number or not each.accepts(number):
            _refuse(name, value, each.expected)
    return number


def _boolean(name: str, value: object) -> bool:
    """Accepts True, False, 1 and 0."""
    flag = plain(value)
    if not isinstance(flag, int) or flag not in (0, 1):
        _refuse(name, value, "True or False")
    return bool(flag)


def _flag_or_mask(name: str, value: object) -> bool | Tensor:
    """Accepts True, False, 1 and 0, and any tensor with an axis, which the function has to check."""
    if isinstance(value, Tensor) and value.dim():
        return value
    flag = plain(value)
    if not isinstance(flag, int) or flag not in (0, 1):
        raise TypeError(
            f"{name} is {shown(value)}, expected True, False or a mask: a bool tensor with a value a code"
        )
    return bool(flag)


Frozen = Annotated[bool | Tensor, _flag_or_mask]
"""Which codes stay: all, none, or those of a mask, bool [K]."""


def _choice(choices: tuple[str, ...], name: str, value: object) -> str:
    chosen = plain(value)
    if not isinstance(chosen, str) or chosen not in choices:
        *first, last = map(repr, choices)
        _refuse(name, value, f"{', '.join(first)} or {last}" if first else last)
    return chosen


def _name_or_other(name: str, value: object) -> Any:
    """Converts a name to a plain string. The function has to check any other value."""
    chosen = plain(value)
    return chosen if isinstance(chosen, str) else value


def _instance(kind: type, name: str, value: object) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {shown(value)}, expected a {kind.__name__}")
    return value


def _optional(check: Check, name: str, value: object) -> Any:
    return None if value is None else check(name, value)


def _sequence(check: Check, name: str, value: object) -> tuple[Any, ...]:
    return tuple(check(f"{name}[{position}]", each) for position, each in enumerate(_elements_of(name, value)))


def _elements_of(name: str, value: object) -> list[Any]:
    found = elements(value)
    if found is None:
        _refuse(name, value, "a sequence")
    return found


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    raise ValueError(f"{name} is {shown(value)}, expected {expected}")
