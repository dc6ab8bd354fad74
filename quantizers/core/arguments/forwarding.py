"""Builders that take further options and forward them to what they build."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from quantizers.core.arguments.options import NAMED, UnknownOptionError, signature_of

F = TypeVar("F", bound=Callable[..., object])


class Computed(str):
    """The default of an option that depends on the others, in words."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Forwarding:
    """Where a builder forwards the options that its own signature does not name.

    Args:
        constructors: classes; each gets its own keyword-only options.
        without: options of these classes that the builder sets itself.
        defaults: options for which the builder has another default than the class.
        others: what gets all other options, in words; empty if there are no others.
    """

    constructors: tuple[Callable[..., object], ...] = ()
    without: frozenset[str] = frozenset()
    defaults: Mapping[str, object] = field(default_factory=dict)
    others: str = ""


def forwards(
    *constructors: Callable[..., object],
    without: tuple[str, ...] = (),
    others: str = "",
    **defaults: object,
) -> Callable[[F], F]:
    """Declare where a builder forwards its `**options`, see `Forwarding`.

    Without `constructors` it is the class whose classmethod the builder is.
    """
    forwarding = Forwarding(constructors, frozenset(without), defaults, others)

    def declare(builder: F) -> F:
        builder.__forwarding__ = forwarding  # type: ignore[attr-defined]
        return builder

    return declare


def forwarding_of(builder: Callable[..., object]) -> Forwarding:
    """What `forwards` declared for a builder, or for the function of a partial; nothing for any other."""
    if isinstance(builder, partial):
        return forwarding_of(builder.func)
    declared: Forwarding | None = getattr(builder, "__forwarding__", None)
    if declared is None:
        return Forwarding()
    owner = getattr(builder, "__self__", None)
    if declared.constructors or not isinstance(owner, type):
        return declared
    return Forwarding((owner,), declared.without, declared.defaults, declared.others)


def options_of(builder: Callable[..., object]) -> dict[str, object]:
    """The options of a builder with their defaults: its own and the forwarded ones that it knows by name.

    Returns: names in the order of the signatures; `inspect.Parameter.empty` where there is no default.
    """
    forwarding = forwarding_of(builder)
    own = _defaults(builder, NAMED)
    for constructor in forwarding.constructors:
        forwarded = _defaults(constructor, (inspect.Parameter.KEYWORD_ONLY,))
        own |= _without(forwarded, {*own, *forwarding.without})
    settled = builder.keywords if isinstance(builder, partial) else {}
    return {**own, **{name: value for name, value in forwarding.defaults.items() if name in own}, **settled}


def builder_name(builder: Callable[..., object]) -> str:
    """What errors call a builder: a function or class by its name, a classmethod by its class's."""
    if isinstance(builder, partial):
        return builder_name(builder.func)
    owner = getattr(builder, "__self__", None)
    named = owner if isinstance(owner, type) else builder
    return getattr(named, "__name__", type(named).__name__)


def check_forwarded(builder: Callable[..., object], options: Mapping[str, object]) -> None:
    """Raise UnknownOptionError for an option that neither the builder nor what it builds takes."""
    names = options_of(builder)
    for name in options:
        if name not in names:
            raise UnknownOptionError(name, {builder_name(builder): names})


@contextmanager
def forwarding(builder: Callable[..., object]) -> Iterator[None]:
    """Add a builder to an UnknownOptionError of what it forwards options to."""
    try:
        yield
    except UnknownOptionError as error:
        raise error.taken_by(builder_name(builder), options_of(builder)) from None


def split_options(
    constructor: Callable[..., object], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that a constructor takes by keyword alone, and the others."""
    own = _defaults(constructor, (inspect.Parameter.KEYWORD_ONLY,)).keys() & options.keys()
    return {name: options[name] for name in options if name in own}, _without(options, own)


def _defaults(function: Callable[..., object], kinds: tuple[Any, ...]) -> dict[str, object]:
    parameters = signature_of(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind in kinds}


def _without(options: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
