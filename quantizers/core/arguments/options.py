"""Calls of constructors and builders: options that do not exist or are missing are named, the others checked."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

from quantizers.core.arguments.checks import Check, check_for
from quantizers.core.arguments.hints import hint_for, meant_by
from quantizers.core.arguments.shared import expanded_signature

P = ParamSpec("P")
R = TypeVar("R")

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

REQUIRED = (inspect.Parameter.POSITIONAL_ONLY, *NAMED)


class UnknownOptionError(TypeError):
    """An option that neither a quantizer nor anything it forwards its options to takes.

    Args:
        option: its name.
        takes: the options of everything that the option reached, by name, from the inside out.
    """

    def __init__(self, option: str, takes: Mapping[str, Collection[str]]) -> None:
        super().__init__(option, takes)
        self.option = option
        self.takes = takes

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for taken in self.takes.values() for name in taken))
        lists = "; ".join(f"{taker} takes {', '.join(taken)}" for taker, taken in self.takes.items())
        return f"there is no option {self.option!r}{hint_for(self.option, names)} {lists}"

    def taken_by(self, taker: str, names: Collection[str], instead_of: str = "") -> "UnknownOptionError":
        """The same error with one more taker outside the others, under its own name or `instead_of` another."""
        inner = {name: taken for name, taken in self.takes.items() if name not in (taker, instead_of)}
        return UnknownOptionError(self.option, {**inner, taker: names})


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function or constructor by their annotations, and convert them to plain values.

    See `check_for`. An option that does not exist or is missing raises a TypeError that names it and lists the
    options; errors of the function itself pass unchanged. Defaults are not checked. Shared options, `**options:
    Unpack[...]`, become parameters of the signature, see `quantizers.core.arguments.shared`.
    """
    signature, defaults = expanded_signature(function)
    checks = {name: check_for(parameter.annotation) for name, parameter in signature.parameters.items()}
    taker = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = bind(taker, signature, *args, **kwargs)
        _make_plain(bound, checks)
        bound.arguments = {**defaults, **bound.arguments}
        return function(*bound.args, **bound.kwargs)

    call.__checks__ = checks  # type: ignore[attr-defined]
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def plain_arguments(
    constructor: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Arguments as a constructor that is `checked` gets them, without self; of any other as they are."""
    checks: Mapping[str, Check | None] | None = getattr(constructor, "__checks__", None)
    if checks is None:
        return args, dict(kwargs)
    try:
        bound = inspect.signature(constructor).bind(None, *args, **kwargs)
    except TypeError:  # the constructor will say so; a copy calls none
        return args, dict(kwargs)
    _make_plain(bound, checks)
    return bound.args[1:], bound.kwargs


def checked_options(constructor: Callable[..., object]) -> Collection[str]:
    """The names of the arguments of a constructor that is `checked`; none of any other."""
    return getattr(constructor, "__checks__", ())


def bind(taker: str, signature: inspect.Signature, /, *args: object, **kwargs: object) -> inspect.BoundArguments:
    """`signature.bind`, whose TypeErrors are sentences.

    Raises: UnknownOptionError; TypeError for an argument that is missing, given twice, or one too many.
    """
    try:
        return signature.bind(*args, **kwargs)
    except TypeError:
        parameters = [item for item in signature.parameters.values() if item.name != "self"]
        given = args[len(signature.parameters) - len(parameters) :]
        _check_known(taker, parameters, kwargs)
        _check_positional(taker, parameters, given, kwargs)
        _check_missing(taker, parameters, given, kwargs)
        raise


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """The signature of a function, of a class's constructor, or of what a partial leaves open.

    A class without a constructor of its own has that of its base class. (Before Python 3.11.4 `inspect.signature`
    gives the first class's with a `__new__`.)
    """
    return inspect.signature(_as_function(function))


def _make_plain(bound: inspect.BoundArguments, checks: Mapping[str, Check | None]) -> None:
    for name, value in bound.arguments.items():
        check = checks.get(name)
        if check is not None:
            bound.arguments[name] = check(name, value)


def _as_function(function: Callable[..., object]) -> Callable[..., object]:
    if isinstance(function, partial):
        return partial(_as_function(function.func), *function.args, **function.keywords)
    return partial(function.__init__, None) if isinstance(function, type) else function  # type: ignore[misc]


def _check_known(taker: str, parameters: Sequence[inspect.Parameter], kwargs: Mapping[str, object]) -> None:
    names = [parameter.name for parameter in parameters if parameter.kind in NAMED]
    unknown = [name for name in kwargs if name not in names]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise UnknownOptionError(unknown[0], {taker: names})


def _check_positional(
    taker: str, parameters: Sequence[inspect.Parameter], args: Sequence[object], kwargs: Mapping[str, object]
) -> None:
    names = _positional(parameters)
    if len(args) > len(names) and not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        raise TypeError(
            f"{taker} got {len(args)} positional arguments, expected at most {len(names)}, {', '.join(names)}, "
            "and the others by their names"
        )
    for name in names[: len(args)]:
        if name in kwargs:
            raise TypeError(f"{taker} got {name} twice, by its position and by its name; expected it once")


def _check_missing(
    taker: str, parameters: Sequence[inspect.Parameter], args: Sequence[object], kwargs: Mapping[str, object]
) -> None:
    given = {*_positional(parameters)[: len(args)], *kwargs}
    needed = [item.name for item in parameters if item.default is item.empty and item.kind in REQUIRED]
    missing = [name for name in needed if name not in given]
    if missing:
        near = meant_by(missing[0], kwargs.keys() - {item.name for item in parameters})
        hint = f" (perhaps given as {near!r})" if near else ""
        got = ", ".join(kwargs) or "no option by name"
        raise TypeError(
            f"{taker} is missing {' and '.join(missing)}{hint}; it got {got}, expected {', '.join(needed)}"
        )


def _positional(parameters: Sequence[inspect.Parameter]) -> list[str]:
    return [item.name for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
