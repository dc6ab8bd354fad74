"""Calls of a module's methods by way of its `forward`, where hooks and offloaders stand."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Request(NamedTuple):
    """A method to call, in the place of what `forward` takes."""

    method: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def answer(self, module: Any) -> Any:
        """What the method returns; for the `forward` that was given this request."""
        return self.method(module, *self.arguments, **self.options)


def through_forward(method: Callable[P, R]) -> Callable[P, R]:
    """A method that is called by way of its module's `forward`, which answers a Request.

    What brings a module's weights to where they are needed (offloading) wraps `forward`, and whatever else reads
    weights has to come through it. Forward hooks see calls of the module alone, and not these.
    """

    @functools.wraps(method)
    def called(*arguments: P.args, **options: P.kwargs) -> R:
        module: Any = arguments[0]
        answer: R = module.forward(Request(method, arguments[1:], dict(options)))
        return answer

    return called
