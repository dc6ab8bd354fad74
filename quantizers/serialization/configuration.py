"""A quantizer as JSON: every class and every option, without its weights.

    saved = quantizers.configuration(quantizer)  # {"format": 1, "quantizer": "SimVQ", "arguments": {...}, ...}
    quantizers.rebuild(saved)  # another SimVQ with the same options

Each quantizer records the arguments of its constructor. The configuration contains all of them, including the
defaults. Numbers, strings, booleans, null and lists are written as they are (tuples as lists); everything else is
one of these objects:

| object | meaning |
|---|---|
| `{"quantizer": class, "arguments": {...}}` | a quantizer, with the name of its class |
| `{"module": class, "arguments": {...}}` | an allowed module, such as `nn.Tanh` |
| `{"module": "nn.Sequential", "modules": [[name, module], ...]}` | nn.Sequential |
| `{"regularizer": class, "arguments": {...}}` | an allowed regularizer |
| `{"same_as": id}` | the object with that `"id"`, such as a shared codebook |
| `{"float": "inf"}`, `{"mapping": [[name, value], ...]}` | a float that JSON cannot represent, a dict |
| `{"missing": description}` | a value that JSON cannot represent, such as a function; `rebuild` takes it by name |

A quantizer may have two more keys. `"assigned"` contains numbers that were changed after construction, such as
an annealed commitment weight; `Quantizer.assignable` lists their names. `"positional"` contains the positional
arguments of a constructor that takes any number of them.

Allowed are PyTorch's usual layers and activations, and classes that are decorated with `quantizers.configurable`.

A configuration does not contain weights and other state (Gumbel's current temperature is state; so are a codebook
and a mask of frozen codes that the constructor was given), whether
parameters require gradients, the training mode, the device, the dtype, or which ranks train together: a process
group becomes "world".
"""

import inspect
import math
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from quantizers.core.arguments.checks import plain, shown
from quantizers.core.arguments.configurable import is_same_definition
from quantizers.core.arguments.construction import Unserializable, describe, to_serializable
from quantizers.core.arguments.options import checked_options
from quantizers.core.base import Quantizer
from quantizers.core.regularizer import Regularizer
from quantizers.serialization.allowed_modules import SEQUENTIAL, name_and_arguments
from quantizers.serialization.quantizer_classes import quantizer_class
from quantizers.serialization.rebuilding import FORMAT, Node, is_number, missing_values, rebuild

__all__ = ["configuration", "rebuild"]


def configuration(quantizer: Quantizer) -> dict[str, Any]:
    """The classes and options of a quantizer as JSON values, from which `rebuild` makes a new one.

    It contains no weights; `save` writes both. The format is described in
    `quantizers/serialization/configuration.py`.

        >>> import quantizers
        >>> saved = quantizers.configuration(quantizers.FSQ(4, levels=(8, 5, 5)))
        >>> saved["quantizer"], saved["arguments"]["levels"]
        ('FSQ', [8, 5, 5])

    Returns: a dict with the keys "format", "version", "quantizer" and "arguments". A value that JSON cannot
        represent, such as a function, is marked as missing; pass it to `rebuild` by name.

    Raises: TypeError for something other than a Quantizer; ValueError where two quantizer classes have the same
        name, and for a quantizer whose constructor did not run.
    """
    from quantizers.version import __version__

    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"quantizer is {describe(quantizer)}, expected a Quantizer")
    return {"format": FORMAT, "version": __version__, **_Serializer(quantizer, {}).node()}


class _Serializer:
    """Converts a quantizer to a node of the configuration.

    Args:
        quantizer: the one to convert.
        nodes: the modules that the configuration contains already; they are referred to by id.
    """

    def __init__(self, quantizer: Quantizer, nodes: dict[nn.Module, Node]) -> None:
        self._quantizer = quantizer
        self._modules = set(quantizer.modules())
        self._nodes = nodes

    def node(self) -> Node:
        cls = self._quantizer._construction.of
        if not is_same_definition(quantizer_class(cls.__name__), cls):
            raise ValueError(f"another quantizer class is also named {cls.__name__!r}; rename one of them")
        positional, arguments = self._arguments()
        node: Node = {"quantizer": cls.__name__, "arguments": arguments}
        if positional:
            node["positional"] = positional
        if assigned := self._assigned(arguments):
            node["assigned"] = assigned
        return node

    def _arguments(self) -> tuple[list[Any], Node]:
        """The constructor's positional and named arguments; all of them are named where it takes names.

        The named ones include the defaults, as far as JSON can represent them.
        """
        bound = self._bound()
        if self._kinds() & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
            positional, named = list(bound.args[1:]), dict(bound.kwargs)
        else:
            positional, named = [], dict(list(bound.arguments.items())[1:])
            for name, parameter in bound.signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    named |= named.pop(name, {})
        arguments = {name: self._to_json(value) for name, value in named.items()} | self._defaults(bound)
        for name, value in self._quantizer._options_in_state().items():
            if name in arguments and (arguments[name] is None or any(missing_values(arguments[name]))):
                arguments[name] = value
        if "process_group" in arguments and hasattr(self._quantizer, "process_group"):
            arguments["process_group"] = None if self._quantizer.process_group is None else "world"
        return [self._to_json(value) for value in positional], arguments

    def _bound(self) -> inspect.BoundArguments:
        call = self._quantizer._construction
        try:
            return inspect.signature(call.of.__init__).bind(self._quantizer, *call.positional, **call.named)
        except TypeError as error:
            raise ValueError(
                f"the arguments of this {call.of.__name__} are not known ({error}): its constructor did not run, "
                "for example because it was unpickled from an older version"
            ) from error

    @property
    def _checked_options(self) -> Collection[str]:
        """The options that a constructor of this library checks; empty for a user's own constructor."""
        return checked_options(self._quantizer._construction.of.__init__)

    def _kinds(self) -> set[Any]:
        parameters = inspect.signature(self._quantizer._construction.of.__init__).parameters
        return {parameter.kind for parameter in parameters.values()}

    def _defaults(self, bound: inspect.BoundArguments) -> Node:
        defaults = {}
        for name, parameter in bound.signature.parameters.items():
            if name not in bound.arguments and parameter.default is not inspect.Parameter.empty:
                value = self._to_json(to_serializable(parameter.default))
                if not any(missing_values(value)):  # the constructor supplies the others
                    defaults[name] = value
        return defaults

    def _assigned(self, arguments: Node) -> Node:
        # A user's constructor may set a number for which it has no argument. A constructor of this library has an
        # argument for each, and sets the others to the same value again.
        names = [name for name in self._quantizer.assignable if name in arguments or not self._checked_options]
        current = {name: self._number(name) for name in names}
        numbers = {name: self._to_json(value) for name, value in current.items() if is_number(value)}
        return {name: value for name, value in numbers.items() if arguments.get(name) != value}

    def _number(self, name: str) -> object:
        """The current value of a number; None for a number that is state, such as Gumbel's temperature."""
        value = getattr(self._quantizer, name, None)
        if isinstance(value, Tensor) and name not in vars(self._quantizer):
            return None
        if name in self._checked_options and not is_number(plain(value)):
            raise ValueError(f"{name} is {shown(value)}, expected a number: it was assigned after construction")
        return plain(value)

    def _to_json(self, value: object) -> Any:
        """A recorded argument as JSON."""
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}
        if isinstance(value, list):
            return [self._to_json(element) for element in value]
        if isinstance(value, dict):
            return {"mapping": [[name, self._to_json(element)] for name, element in value.items()]}
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Regularizer):
            return self._allowed("regularizer", value)
        return {"missing": value.description} if isinstance(value, Unserializable) else value

    def _module(self, module: nn.Module) -> Node:
        if module not in self._modules:
            return {"missing": f"an instance of {describe(module)} that the quantizer no longer contains"}
        if module in self._nodes:
            return {"same_as": self._nodes[module].setdefault("id", self._next_id())}
        if isinstance(module, Quantizer):
            node = _Serializer(module, self._nodes).node()
        elif type(module) is nn.Sequential:
            modules = [[name, self._to_json(child)] for name, child in module.named_children()]
            node = {"module": SEQUENTIAL, "modules": modules}
        else:
            node = self._allowed("module", module)
        if "missing" not in node:
            self._nodes[module] = node
        return node

    def _allowed(self, kind: str, instance: nn.Module | Regularizer) -> Node:
        allowed = name_and_arguments(instance)
        if allowed is None:
            return {"missing": f"an instance of {describe(instance)}"}
        name, arguments = allowed
        return {
            kind: name,
            "arguments": {option: self._to_json(to_serializable(value)) for option, value in arguments.items()},
        }

    def _next_id(self) -> int:
        return 1 + sum("id" in node for node in self._nodes.values())
