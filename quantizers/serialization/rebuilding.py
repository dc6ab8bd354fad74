"""A quantizer from its configuration; see `quantizers.configuration` for its form.

A configuration may come from a stranger. Nothing is imported for one, and nothing is called but the classes that
derive from Quantizer in this process, ours and those that the program itself has defined, and the parts in
`quantizers.serialization.allowed_modules`. How much memory it asks for is checked by nobody.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from quantizers.core.arguments.options import signature_of
from quantizers.core.base import Quantizer
from quantizers.serialization.allowed_modules import MODULES, REGULARIZERS, SEQUENTIAL, class_named

FORMAT = 1
Node = dict[str, Any]


def rebuild(configuration: Mapping[str, Any], /, **overrides: Any) -> Quantizer:
    """A new quantizer of that configuration, in training mode and with first weights.

    Args:
        configuration: as `configuration` gives it; it may have gone through JSON, and have its keys in any order.
        overrides: options of the quantizer that are to be others, by name. One that the configuration is missing
            must be given. By its name it is filled in wherever it is missing, inside too; by its path an option in
            one place alone is meant: `rebuild(c, **{"stages.1.gradient": function})`.

    Raises: ValueError for a configuration of another format, a class that is not known here, options that its
        constructor does not take, what is missing, and overrides that fit nothing; and what constructors raise.
    """
    _check_format(configuration)
    root: Node = copy.deepcopy({**configuration})
    _check_form(root)
    _override(root, overrides)
    missing = {path: ", ".join(missing_in(value)) for path, value in _options(root)}
    missing = {path: what for path, what in missing.items() if what}
    if missing:
        first = next(iter(missing)).rpartition(".")[2]
        raise ValueError(
            f"the configuration of {root['quantizer']} is missing what JSON cannot tell: "
            + "; ".join(f"{path} was {what}" for path, what in missing.items())
            + f". Pass it by its name: {first}=..."
        )
    quantizer: Quantizer = _Builder(root).build(root)
    return quantizer


def missing_in(value: Any) -> Iterator[str]:
    """What is missing in an argument, but for that in the arguments of a quantizer in it."""
    if isinstance(value, dict) and "missing" in value:
        yield str(value["missing"])
    if not _is_quantizer(value):
        for _, part in _parts(value):
            yield from missing_in(part)


def is_number(value: object) -> bool:
    """Whether it is a number or a boolean."""
    return isinstance(value, bool | int | float)


class _Override:
    """An override, in the place of what the configuration has."""

    def __init__(self, value: object) -> None:
        self.value = value


class _Builder:
    """Builds nodes, those that have an id once."""

    def __init__(self, root: Node) -> None:
        self._shared = {str(node["id"]): node for node in _nodes(root) if "id" in node}
        self._built: dict[str, Any] = {}

    def build(self, value: Any) -> Any:
        if isinstance(value, _Override):
            return value.value
        if isinstance(value, list):
            return [self.build(part) for part in value]
        if not isinstance(value, dict):
            return value
        number = value.get("same_as", value.get("id"))
        return self._object(value) if number is None else self._once(str(number))

    def _once(self, number: str) -> Any:
        if number not in self._built:
            if number not in self._shared:
                raise ValueError(f"the configuration has no object with the id {number}, outside of itself")
            self._built[number] = self._object(self._shared.pop(number))
        return self._built[number]

    def _object(self, node: Node) -> Any:
        if "quantizer" in node:
            return self._quantizer(node)
        if node.get("module") == SEQUENTIAL:
            parts = nn.Sequential()
            for name, part in node.get("parts", []):
                parts.add_module(name, self.build(part))
            return parts
        for kind, classes in (("module", MODULES), ("regularizer", REGULARIZERS)):
            if kind in node:
                return self._call(_listed(kind, node[kind], classes), node)
        if "mapping" in node:
            return {name: self.build(part) for name, part in node["mapping"]}
        if node.get("float") in ("inf", "-inf", "nan"):
            return float(node["float"])
        raise ValueError(f"the configuration holds {node!r}, which stands for nothing")

    def _quantizer(self, node: Node) -> Any:
        quantizer = self._call(class_named(node["quantizer"]), node)
        for name, value in node.get("assigned", {}).items():
            number = self.build(value)
            if name not in quantizer.assignable or not is_number(number):
                raise ValueError(
                    f"the configuration assigns {number!r} to {name}, expected a number, and one of "
                    f"{', '.join(quantizer.assignable)}"
                )
            setattr(quantizer, name, number)
        return quantizer

    def _call(self, part: Callable[..., Any], node: Node) -> Any:
        positional = self.build(node.get("positional", []))
        named = {name: self.build(value) for name, value in node.get("arguments", {}).items()}
        try:
            signature_of(part).bind(*positional, **named)
        except TypeError as error:
            raise ValueError(
                f"the configuration's options are not those that {part.__name__} takes: {error}"
            ) from error
        return part(*positional, **named)


def _check_format(configuration: Mapping[str, Any]) -> None:
    from quantizers.version import __version__

    if not isinstance(configuration, Mapping) or not {"format", "quantizer", "arguments"} <= configuration.keys():
        raise ValueError("this is no quantizer's configuration: it has no 'format', 'quantizer' and 'arguments'")
    if configuration["format"] != FORMAT:
        raise ValueError(
            f"the configuration has format {configuration['format']!r}, expected {FORMAT}: it is of "
            f"quantizers-torch {configuration.get('version')}, and this is {__version__}"
        )


def _check_form(value: Any) -> None:
    """Raises: ValueError for an object whose entries are not of the types that they always have."""
    if isinstance(value, dict):
        types = {"quantizer": str, "module": str, "regularizer": str, "arguments": dict, "assigned": dict}
        types |= {"positional": list, "parts": list, "mapping": list}
        has_types = all(isinstance(value[key], types[key]) for key in value.keys() & types.keys())
        pairs = [*value.get("parts", []), *value.get("mapping", [])] if has_types else []
        if not has_types or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            raise ValueError(f"the configuration holds {value!r}, which has not the form of an object")
    for _, part in _parts(value):
        _check_form(part)


def _listed(kind: str, name: Any, classes: Mapping[str, type]) -> type:
    if name not in classes:
        raise ValueError(f"the configuration has the {kind} {name!r}, expected one of {', '.join(classes)}")
    return classes[name]


def _override(root: Node, overrides: Mapping[str, Any]) -> None:
    """Put overrides in the place of the options that they name."""
    used = set()
    for prefix, node in [*_quantizers(root, "")]:
        for name, value in node.get("arguments", {}).items():
            path = f"{prefix}{name}"
            key = name if path not in overrides and any(missing_in(value)) else path
            if key in overrides:
                _give(node, name, overrides[key])
                used.add(key)
    for name in overrides.keys() - used:
        if not _takes(class_named(root["quantizer"]), name):  # else it is newer than the configuration
            paths = ", ".join(path for path, _ in _options(root))
            raise ValueError(f"there is no option {name!r} in this {root['quantizer']}, expected one of {paths}")
        _give(root, name, overrides[name])


def _give(node: Node, name: str, value: object) -> None:
    node["arguments"][name] = _Override(value)
    node.get("assigned", {}).pop(name, None)


def _takes(part: type, name: str) -> bool:
    parameters = signature_of(part).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return name in parameters or (takes_any and name.isidentifier())


def _options(root: Node) -> Iterator[tuple[str, Any]]:
    """The arguments of all quantizers, by their paths."""
    for prefix, node in _quantizers(root, ""):
        for name, value in _parts(node):
            yield f"{prefix}{name}", value


def _quantizers(value: Any, prefix: str) -> Iterator[tuple[str, Node]]:
    """The nodes of quantizers, with what stands before an option's name in its path."""
    if _is_quantizer(value):
        yield prefix, value
    for name, part in _parts(value):
        yield from _quantizers(part, f"{prefix}{name}.")


def _nodes(value: Any) -> Iterator[Node]:
    """Every object in a configuration."""
    if isinstance(value, dict):
        yield value
    for _, part in _parts(value):
        yield from _nodes(part)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The values in a list or an object, with their names in a path."""
    if isinstance(value, list):
        yield from ((str(place), part) for place, part in enumerate(value))
    if isinstance(value, dict):
        yield from ((str(place), part) for place, part in enumerate(value.get("positional", [])))
        yield from value.get("arguments", {}).items()
        yield from (pair for key in ("parts", "mapping") for pair in value.get(key, []))


def _is_quantizer(value: Any) -> bool:
    return isinstance(value, dict) and "quantizer" in value
