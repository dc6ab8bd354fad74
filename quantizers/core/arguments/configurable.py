"""Modules and regularizers that a configuration may contain: each class registers itself where it is defined."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import nn

from quantizers.core.arguments.checks import shown
from quantizers.core.arguments.construction import RecordedConstruction
from quantizers.core.arguments.options import signature_of
from quantizers.core.regularizer import Regularizer

Arguments = dict[str, Any]
C = TypeVar("C", bound=type[nn.Module] | type[Regularizer])


class ConfigurableClass(NamedTuple):
    """A class that a configuration may contain."""

    name: str  # in a configuration
    arguments: Callable[[Any], Arguments]  # the constructor's arguments, read from an instance


_CONFIGURABLE: dict[type, ConfigurableClass] = {}


def configurable(*options: str, arguments: Callable[[Any], Arguments] | None = None) -> Callable[[C], C]:
    """Let a configuration contain instances of a class: a regularizer, or a module inside a quantizer.

    `quantizers.configuration` writes such an instance as the name of its class and the constructor's arguments,
    and `quantizers.rebuild` calls the constructor with them. A module's weights are in the state dict, as usual.

        @quantizers.configurable("scale")
        class Scaling(nn.Module):
            def __init__(self, scale: float) -> None:
                super().__init__()
                self.scale = scale

            def forward(self, codes: Tensor) -> Tensor:
                return self.scale * codes

        quantizers.configuration(SimVQ(64, 1024, transform=Scaling(0.5)))  # contains {"module": "Scaling", ...}

    The program that rebuilds the quantizer must import the module that defines the class first. Only register a
    class whose constructor is safe to call with arguments from a stranger. A subclass is another class, and has to
    be registered itself. Quantizers need no registration.

    Args:
        options: the constructor's arguments that an instance has as attributes of the same names.
        arguments: returns the constructor's arguments by name, read from an instance; for classes whose
            attributes have other names. They are added to those in `options`.

    Returns: a decorator that registers the class and returns it unchanged.

    Raises: TypeError for something other than a subclass of nn.Module or of Regularizer, for a quantizer, and for
        options that the constructor does not take; ValueError for the name of a class that another module has
        registered.
    """
    for option in options:
        if not isinstance(option, str):
            raise TypeError(f"configurable got {shown(option)}, expected names of options: @configurable(...)")

    def decorate(cls: C) -> C:
        _check_class(cls)
        if arguments is None:
            _check_options(cls, options)
        _check_name(cls)
        _CONFIGURABLE[cls] = ConfigurableClass(cls.__name__, _reader(options, arguments))
        return cls

    return decorate


def configurable_classes() -> dict[type, ConfigurableClass]:
    """The registered classes. A class that was defined again comes after its older definition."""
    return dict(_CONFIGURABLE)


def is_same_definition(a: type, b: type) -> bool:
    """Whether the classes have the same module and qualified name, as when a notebook cell ran twice."""
    return (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)


def _reader(options: tuple[str, ...], arguments: Callable[[Any], Arguments] | None) -> Callable[[Any], Arguments]:
    def read(instance: Any) -> Arguments:
        attributes = {name: getattr(instance, name) for name in options}
        return attributes if arguments is None else attributes | arguments(instance)

    return read


def _check_class(cls: object) -> None:
    if not isinstance(cls, type) or not issubclass(cls, nn.Module | Regularizer):
        raise TypeError(f"configurable got {shown(cls)}, expected a subclass of nn.Module or of Regularizer")
    if issubclass(cls, RecordedConstruction):
        raise TypeError(
            f"configurable got the quantizer class {cls.__name__}, expected another module or a regularizer: a "
            "configuration may contain every quantizer without registration"
        )


def _check_options(cls: type, options: tuple[str, ...]) -> None:
    try:
        signature_of(cls).bind(**dict.fromkeys(options))
    except TypeError as error:
        raise TypeError(
            f"configurable got the options {', '.join(options) or '(none)'} for {cls.__name__}, whose constructor "
            f"cannot be called with them: {error}"
        ) from error


def _check_name(cls: type) -> None:
    for other, registered in _CONFIGURABLE.items():
        if registered.name == cls.__name__ and not is_same_definition(other, cls):
            raise ValueError(
                f"configurable got {cls.__module__}.{cls.__qualname__}, but {other.__module__}."
                f"{other.__qualname__} is registered under the name {cls.__name__!r}; rename one of them"
            )
