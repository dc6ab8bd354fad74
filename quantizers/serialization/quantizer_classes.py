"""The classes of quantizers that a configuration may contain: those that are defined in this process."""

import difflib
import inspect
from collections.abc import Iterator
from typing import Any

from quantizers.core.arguments.configurable import is_same_definition
from quantizers.core.base import Quantizer


def quantizer_class(name: str) -> type[Quantizer]:
    """The quantizer class of that name, from this library or from the program that uses it.

    Of a class that was defined several times, as in a notebook, it is the latest definition.

    Raises: ValueError for an unknown name, with similar ones, and for a name that several modules use.
    """
    concrete = [each for each in _subclasses(Quantizer) if not inspect.isabstract(each)]
    classes = [each for each in concrete if each.__name__ == name]
    if not classes:
        names = sorted({each.__name__ for each in concrete})
        near = difflib.get_close_matches(str(name), names, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"no quantizer class is named {name!r} here{hint}; there are {', '.join(names)}. If it is a class of "
            "your own, import its module first"
        )
    if not all(is_same_definition(each, classes[-1]) for each in classes):
        sources = ", ".join(f"{each.__module__}.{each.__qualname__}" for each in classes)
        raise ValueError(f"several quantizer classes are named {name!r}, {sources}; give each a name of its own")
    return classes[-1]


def _subclasses(of: Any) -> Iterator[type[Quantizer]]:
    for each in of.__subclasses__():
        yield each
        yield from _subclasses(each)
