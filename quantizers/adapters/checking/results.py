"""Compare what two calls returned, and describe it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor

MOST = 0.1
"""The largest share of elements that may differ: two searches may choose different codes where distances tie."""
TOLERANCE = 1e-3
"""How far values may be apart, relative to the largest: more than roundings, much less than two codes are."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How results are compared."""

    vectors: int
    """The number of vectors that were quantized. Floats of fewer elements are losses or statistics, of which only
    the shape counts."""
    values: bool
    """Whether indices and vectors must agree in value, too."""

    def differences(self, expected: Any, given: Any) -> Iterator[tuple[str, str]]:
        """What is different about a result, as a place in it and words; nothing if it has the nesting, shapes and
        dtypes of `expected`. The place is empty if the results differ as a whole."""
        for place, one, other in _pairs("", expected, given):
            found = self._difference(one, other)
            if found:
                yield place, found

    def _difference(self, expected: Any, given: Any) -> str | None:
        if isinstance(expected, Tensor) and isinstance(given, Tensor):
            same = expected.shape == given.shape and self._same_kind(expected, given)
            share = self._share_of_others(expected, given) if same else 0.0
            if share > MOST:
                return f"has other values than the contract gives with the same codes, {100 * share:.0f} % of them"
        else:
            numbers = _is_number(expected) and _is_number(given)
            same = numbers or (type(expected) is type(given) and _parts(expected) is None)
        return None if same else f"is {described(expected)} where the contract gives {described(given)}"

    def _same_kind(self, expected: Tensor, given: Tensor) -> bool:
        """Integers of any width count alike, and so do losses of any precision."""
        if not expected.is_floating_point():
            return not given.is_floating_point() and (expected.dtype == torch.bool) == (given.dtype == torch.bool)
        return given.is_floating_point() and (self._is_short(expected) or expected.dtype == given.dtype)

    def _is_short(self, floats: Tensor) -> bool:
        return floats.numel() < self.vectors

    def _share_of_others(self, expected: Tensor, given: Tensor) -> float:
        """The share of elements that differ in value."""
        is_floating = expected.is_floating_point()
        without_values = expected.is_meta or given.is_meta or not expected.numel()
        if not self.values or without_values or (is_floating and self._is_short(expected)):
            return 0.0
        apart = (expected - given).abs() > TOLERANCE * expected.abs().amax() if is_floating else expected != given
        return apart.float().mean().item()


def described(result: Any) -> str:
    """A result in short: `(float32 [2, 4, 8], None, int64 [16])`."""
    if isinstance(result, Tensor):
        return f"{str(result.dtype).removeprefix('torch.')} {list(result.shape)}"
    if isinstance(result, Mapping):
        return "{" + ", ".join(f"{name!r}: {described(value)}" for name, value in result.items()) + "}"
    if isinstance(result, Sequence) and not isinstance(result, str):
        inner = ", ".join(map(described, result))
        return f"[{inner}]" if isinstance(result, list) else f"({inner}{',' * (len(result) == 1)})"
    return "None" if result is None else type(result).__name__


def _pairs(place: str, expected: Any, given: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves of two results side by side; whole parts where their nesting differs."""
    one, other = _parts(expected), _parts(given)
    if one is None or other is None or one.keys() != other.keys():
        yield place, expected, given
        return
    for name, part in one.items():
        yield from _pairs(f"{place}{name}", part, other[name])


def _parts(result: Any) -> Mapping[str, Any] | None:
    """The parts of a container by their place in it; None for anything else."""
    if isinstance(result, Mapping):
        return {f"[{name!r}]": value for name, value in result.items()}
    if dataclasses.is_dataclass(result):
        return {f".{field.name}": getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Sequence) and not isinstance(result, str):
        return {f"[{position}]": value for position, value in enumerate(result)}
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)
