"""A quantizer as JSON, and the same quantizer from it: every class and every option, without its weights.

    told = configuration(quantizer)  # {"format": 1, "quantizer": "SimVQ", "arguments": {"dim": 64, ...}, ...}
    rebuild(told)  # another SimVQ, of the same options

Each quantizer keeps the arguments of its constructor; the configuration has all of them, also those that were left
at their defaults. It holds numbers, strings, booleans, null and lists (tuples too) as they are, and these objects:

| object | stands for |
|---|---|
| `{"quantizer": class, "arguments": {...}}` | a quantizer, by the name of its class |
| `{"module": class, "arguments": {...}}` | a module that is listed as allowed, such as `nn.Tanh` |
| `{"module": "nn.Sequential", "parts": [[name, module], ...]}` | nn.Sequential |
| `{"regularizer": class, "arguments": {...}}` | one of ours |
| `{"same_as": id}` | the object that has that `"id"`, as a shared codebook |
| `{"float": "inf"}`, `{"mapping": [[name, value], ...]}` | a float that JSON has no form for, a dict |
| `{"missing": what}` | what JSON cannot tell, as a user's function: to be passed to `rebuild` by name |

`"assigned"` holds numbers that are others than the constructor's argument of their name, as an annealed commitment
weight: those of `Quantizer.assignable`. `"positional"` holds the arguments of a constructor that takes any number.

What a configuration does not tell: weights and other state, Gumbel's present temperature among it; whether
parameters learn (`requires_grad`); training or evaluation; device and dtype; and which ranks train together: a
process group becomes "world".
"""

import inspect
import math
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from quantizers.core.arguments.checks import plain, shown
from quantizers.core.arguments.construction import Unserializable, named_kind, serializable
from quantizers.core.arguments.options import checked_options
from quantizers.core.base import Quantizer
from quantizers.core.regularizer import Regularizer
from quantizers.serialization.allowed_modules import SEQUENTIAL, class_named, described, same_source
from quantizers.serialization.rebuilding import FORMAT, Node, is_number, missing_in, rebuild

__all__ = ["configuration", "rebuild"]


def configuration(quantizer: Quantizer) -> dict[str, Any]:
    """What `rebuild` builds the same quantizer from: JSON values, see above.

    Raises: TypeError for what is no Quantizer; ValueError where two classes of quantizers have one name, and for
        a quantizer whose constructor did not run.
    """
    from quantizers.version import __version__

    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"quantizer is {named_kind(quantizer)}, expected a Quantizer")
    return {"format": FORMAT, "version": __version__, **_Describer(quantizer, {}).node()}


class _Describer:
    """Tells a quantizer as a node; modules that have been `described` before are the same again."""

    def __init__(self, quantizer: Quantizer, described: dict[nn.Module, Node]) -> None:
        self._quantizer = quantizer
        self._held = set(quantizer.modules())
        self._described = described

    def node(self) -> Node:
        made = self._quantizer._construction.of
        if not same_source(class_named(made.__name__), made):
            raise ValueError(f"another quantizer class is named {made.__name__!r} too; give one another name")
        positional, arguments = self._arguments()
        node: Node = {"quantizer": made.__name__, "arguments": arguments}
        if positional:
            node["positional"] = positional
        if assigned := self._assigned(arguments):
            node["assigned"] = assigned
        return node

    def _arguments(self) -> tuple[list[Any], Node]:
        """Those of the constructor, with the defaults that can be told; by name, where it takes only such."""
        bound = self._bound()
        if self._kinds() & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
            positional, named = list(bound.args[1:]), dict(bound.kwargs)
        else:
            positional, named = [], dict(list(bound.arguments.items())[1:])
            for name, parameter in bound.signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    named |= named.pop(name, {})
        told = {name: self._to_json(value) for name, value in named.items()} | self._defaults(bound)
        if "process_group" in told and hasattr(self._quantizer, "process_group"):
            told["process_group"] = None if self._quantizer.process_group is None else "world"
        return [self._to_json(value) for value in positional], told

    def _bound(self) -> inspect.BoundArguments:
        made = self._quantizer._construction
        try:
            return inspect.signature(made.of.__init__).bind(self._quantizer, *made.positional, **made.named)
        except TypeError as error:
            raise ValueError(
                f"the arguments of this {made.of.__name__} are not known ({error}): its constructor did not run, "
                "as when it was unpickled from an older version"
            ) from error

    @property
    def _checks(self) -> Collection[str]:
        """The options that one of our constructors checks; none of a user's."""
        return checked_options(self._quantizer._construction.of.__init__)

    def _kinds(self) -> set[Any]:
        parameters = inspect.signature(self._quantizer._construction.of.__init__).parameters
        return {parameter.kind for parameter in parameters.values()}

    def _defaults(self, bound: inspect.BoundArguments) -> Node:
        told = {}
        for name, parameter in bound.signature.parameters.items():
            if name not in bound.arguments and parameter.default is not inspect.Parameter.empty:
                value = self._to_json(serializable(parameter.default))
                if not any(missing_in(value)):  # else the constructor will know it
                    told[name] = value
        return told

    def _assigned(self, arguments: Node) -> Node:
        # A user's constructor may set what it has no argument for; ours would set the same again.
        names = [name for name in self._quantizer.assignable if name in arguments or not self._checks]
        present = {name: self._number(name) for name in names}
        told = {name: self._to_json(value) for name, value in present.items() if is_number(value)}
        return {name: value for name, value in told.items() if arguments.get(name) != value}

    def _number(self, name: str) -> object:
        """A number's present value; None for one that is state, as Gumbel's temperature is."""
        value = getattr(self._quantizer, name, None)
        if isinstance(value, Tensor) and name not in vars(self._quantizer):
            return None
        if name in self._checks and not is_number(plain(value)):
            raise ValueError(f"{name} is {shown(value)}, expected a number: it was assigned after construction")
        return plain(value)

    def _to_json(self, value: object) -> Any:
        """A kept argument as JSON."""
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}
        if isinstance(value, list):
            return [self._to_json(part) for part in value]
        if isinstance(value, dict):
            return {"mapping": [[name, self._to_json(part)] for name, part in value.items()]}
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Regularizer):
            return self._part("regularizer", value)
        return {"missing": value.what} if isinstance(value, Unserializable) else value

    def _module(self, module: nn.Module) -> Node:
        if module not in self._held:
            return {"missing": f"a {named_kind(module)} that the quantizer holds no longer"}
        if module in self._described:
            return {"same_as": self._described[module].setdefault("id", self._next_id())}
        if isinstance(module, Quantizer):
            node = _Describer(module, self._described).node()
        elif type(module) is nn.Sequential:
            parts = [[name, self._to_json(part)] for name, part in module.named_children()]
            node = {"module": SEQUENTIAL, "parts": parts}
        else:
            node = self._part("module", module)
        if "missing" not in node:
            self._described[module] = node
        return node

    def _part(self, kind: str, part: nn.Module | Regularizer) -> Node:
        known = described(part)
        if known is None:
            return {"missing": f"a {named_kind(part)}"}
        name, arguments = known
        return {
            kind: name,
            "arguments": {option: self._to_json(serializable(value)) for option, value in arguments.items()},
        }

    def _next_id(self) -> int:
        return 1 + sum("id" in node for node in self._described.values())
