"""The table of a method's options: name, type, default, and what its docstring says."""

import collections.abc
import inspect
import re
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import quantizers
from docs._hooks.docstrings import SECTION, arguments
from quantizers.core import registry
from quantizers.core.arguments.forwarding import forwarding_of
from quantizers.core.arguments.options import signature_of

_REFERENCE = re.compile(r"^as in (\w+)\.?$")
_ELSEWHERE = re.compile(r"\bsee (above|the loss|equation \d+)\b( for the defaults)?")


def table(name: str) -> str:
    """The options of a registered method as a Markdown table, followed by where its other options go."""
    options = quantizers.options(name)
    builders = list(_builders(registry._BUILDERS[name]))
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option, default in options.items():
        shown = "required" if repr(default) == "required" else f"`{_double_quoted(default)}`"
        cells = [f"`{option}`", _escaped(_type_of(option, builders)), shown, _escaped(meaning(option, builders))]
        rows.append(f"| {' | '.join(cells)} |")
    others = re.search(r"^Other options go to (.*)$", repr(options), re.MULTILINE)
    return "\n".join(rows) + (f"\n\nOther options go to {_quoted(others[1])}" if others else "")


def meaning(option: str, builders: list[Callable[..., object]]) -> str:
    """What the first docstring that has an entry for an option says of it; empty without one."""
    for builder in builders:
        text = _entries(builder).get(option, "")
        reference = _REFERENCE.match(text)
        if reference:
            text = _entries(getattr(quantizers, reference[1])).get(option, "")
        if text:
            return _ELSEWHERE.sub("see the equation", text)
    return ""


def _builders(builder: Callable[..., object]) -> Iterator[Callable[..., object]]:
    """A builder, what it builds, and the bases of these, from the most to the least specific."""
    if isinstance(builder, partial):
        yield from _builders(builder.func)
        return
    yield builder
    built = [*forwarding_of(builder).constructors, getattr(builder, "__self__", None)]
    for constructor in built:
        if isinstance(constructor, type):
            yield from _builders(constructor)
    if isinstance(builder, type):
        yield from (base for base in builder.__mro__[1:] if base is not object)


def _entries(builder: Callable[..., object]) -> dict[str, str]:
    text = inspect.cleandoc(builder.__doc__ or "")
    found: dict[str, str] = {}
    for section in re.split(r"\n(?=\S)", text):
        first, _, rest = section.partition("\n")
        label = SECTION.match(first)
        if label and label[1] == "Args":
            for names, said in arguments("Args", label[2] or "", inspect.cleandoc("\n" + rest)):
                found |= dict.fromkeys(names.split(", "), said)
    return found


def _type_of(option: str, builders: list[Callable[..., object]]) -> str:
    for builder in builders:
        parameter = signature_of(builder).parameters.get(option)
        if parameter is not None and parameter.annotation is not inspect.Parameter.empty:
            return shown_type(parameter.annotation)
    return ""


def shown_type(annotation: Any) -> str:
    """A type in short words: "int or None", '"tanh" or "clamp"', "sequence of int"."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return shown_type(inner[0])
    if kind is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if kind in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(shown_type(each) for each in inner))
    if kind is collections.abc.Callable:
        return "callable"
    if kind in (collections.abc.Sequence, tuple, list):
        return f"sequence of {shown_type(inner[0])}" if inner else "sequence"
    if annotation is type(None):
        return "None"
    return f"{getattr(annotation, '__name__', annotation)}"


def _double_quoted(default: object) -> str:
    return f'"{default}"' if type(default) is str else repr(default)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _quoted(text: str) -> str:
    return re.sub(r"options\('(\w+)'\)", r"`quantizers.options('\1')`", text)
