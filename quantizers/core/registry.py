"""Quantizers by name."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from quantizers.core.arguments.checks import plain, shown
from quantizers.core.arguments.options import bind, checked, signature_of
from quantizers.core.base import Quantizer

Builder = Callable[..., Quantizer]
B = TypeVar("B", bound=Builder)

_BUILDERS: dict[str, Builder] = {}


def available() -> tuple[str, ...]:
    """The names that `create` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def register(name: str, builder: Builder | None = None, /, **preset: object) -> Callable[[B], B]:
    """Make `create(name, ...)` call `builder` with the options in `preset` and those that `create` is given.

    A class registers itself as a decorator; anything else that can be called is passed in:

        @register("my_vq")
        class MyQuantizer(Quantizer): ...

        register("my_rotation_vq", VectorQuantizer, gradient="rotation")

    Args:
        name: any string that is not taken.
        builder: a Quantizer class, a partial, or a function that returns a quantizer.
        preset: options of the builder that are settled by the name.

    Returns: a decorator that registers what it decorates and returns it unchanged.

    Raises: ValueError for a name that is taken; TypeError for a name that is not a string or a builder that cannot
        be called.
    """

    def decorate(decorated: B) -> B:
        _add(name, decorated, preset)
        return decorated

    if builder is not None:
        _add(name, builder, preset)
    return decorate


def _add(name: str, builder: Builder, preset: dict[str, object]) -> None:
    if not isinstance(name, str) or not callable(builder):
        raise TypeError(f"register got {name!r} and {builder!r}, expected a name and what to call")
    if name in _BUILDERS:
        raise ValueError(f"a quantizer named {name!r} is registered already")
    _BUILDERS[name] = partial(builder, **preset) if preset else builder


@checked
def create(quantizer: str | Builder, /, **options: object) -> Quantizer:
    """Build a quantizer from its name, its class, or a partial of it.

        create("simvq", dim=256, codebook_size=8192, channel_dim=1)

    Args:
        quantizer: one of `available()`, or what to call.
        options: its constructor's arguments. Every name takes dim, codebook_size and channel_dim.

    Raises: ValueError for an unknown name, with those that are near it, and for an option's value that does not
        fit; TypeError for what is no name, an option that does not exist, with those that do, one that is missing,
        and where the result is no Quantizer.
    """
    builder = _builder(quantizer)
    label = str(plain(quantizer)) if not callable(quantizer) else _name(builder)
    bind(label, signature_of(builder), **options)
    made = builder(**options)
    if not isinstance(made, Quantizer):
        raise TypeError(f"{label} made {type(made).__name__}, expected a Quantizer")
    return made


def _name(builder: Builder) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__name__", type(function).__name__)


def _builder(quantizer: object) -> Builder:
    name = plain(quantizer)
    if isinstance(name, str):
        if name not in _BUILDERS:
            near = difflib.get_close_matches(name.lower(), _BUILDERS, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(f"no quantizer is named {name!r}; {hint}there are {', '.join(available())}")
        return _BUILDERS[name]
    if not callable(quantizer):
        raise TypeError(
            f"quantizer is {shown(quantizer)}, expected a class, a function, or one of {', '.join(available())}"
        )
    return quantizer


def parameters(quantizer: str | Builder) -> frozenset[str]:
    """The options that a name, class or partial leaves open; those that a builder passes on are not seen."""
    builder = quantizer if callable(quantizer) else _BUILDERS.get(quantizer)
    if builder is None:
        return frozenset()
    settled = builder.keywords.keys() if isinstance(builder, partial) else frozenset()
    return frozenset(signature_of(builder).parameters) - settled
