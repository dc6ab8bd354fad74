"""Calls of other methods through a module's `forward`.

Some tools move a module's weights to where they are needed only while the module runs. Offloading (accelerate)
replaces the attribute `forward`; FSDP gathers its shards in hooks, which run when the module itself is called. A
plain call of another method bypasses both, and would find weights on the meta device, or shards. So a method that
reads weights is called through `forward`: the caller passes a `MethodCall` instead of a tensor, and `forward`
runs it.

There are two ways to pass one:

- `module(call)` runs the hooks of the module as well. A quantizer calls its components this way when it
  quantizes, so that FSDP gathers their weights, and a forward hook sees each use of a component.
- `module.forward(call)` runs a replaced `forward`, but no hooks. The decorator `through_forward` does this for
  methods such as `encode` and `decode`, which are no forwards, so that forward hooks do not see them. Under FSDP
  such a method needs `register_fsdp_forward_method`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class MethodCall(NamedTuple):
    """A call of another method, passed to `forward` instead of its usual first argument.

    A `forward` that may receive one begins with

        if isinstance(x, MethodCall):
            return x.run(self)
    """

    method: str | Callable[..., Any]  # the name of a method, or a function whose first argument is the module
    arguments: tuple[Any, ...]  # without the module
    options: dict[str, Any]

    def run(self, module: Any) -> Any:
        """Call the method on `module`, and return its result."""
        if isinstance(self.method, str):
            return getattr(module, self.method)(*self.arguments, **self.options)
        return self.method(module, *self.arguments, **self.options)


def through_forward(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method so that each call goes through the `forward` of its module, without forward hooks.

    `forward` must run a `MethodCall`. The module's docstring above says why.
    """

    @functools.wraps(method)
    def called(*arguments: P.args, **options: P.kwargs) -> R:
        module: Any = arguments[0]
        result: R = module.forward(MethodCall(method, arguments[1:], dict(options)))
        return result

    return called
