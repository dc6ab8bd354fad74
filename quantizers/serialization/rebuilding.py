"""Building a quantizer from its configuration; `quantizers/serialization/configuration.py` describes the format.

A configuration may come from a stranger. Rebuilding imports nothing, and calls nothing except quantizer classes
that this process has defined, and the classes that `quantizers.serialization.allowed_modules` allows. It does not
limit how much memory a configuration allocates.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from quantizers.core.arguments.checks import shown
from quantizers.core.arguments.options import signature_of
from quantizers.core.base import Quantizer
from quantizers.serialization.allowed_modules import KINDS, SEQUENTIAL, allowed_classes
from quantizers.serialization.quantizer_classes import quantizer_class

FORMAT = 1
Node = dict[str, Any]

ENTRY_TYPES: dict[str, type] = {
    "quantizer": str,
    "module": str,
    "regularizer": str,
    "arguments": dict,
    "assigned": dict,
    "positional": list,
    "modules": list,
    "mapping": list,
}
PAIRS = ("modules", "mapping")
"""The keys of lists of [name, value]."""


def rebuild(configuration: Mapping[str, Any], /, **overrides: Any) -> Quantizer:
    """A new quantizer with the classes and options of a configuration, in training mode, with initial weights.

        >>> import quantizers
        >>> saved = quantizers.configuration(quantizers.VectorQuantizer(4, codebook_size=16))
        >>> quantizers.rebuild(saved, distance="cosine").distance
        'cosine'

    Args:
        configuration: the result of `quantizers.configuration`, also after a round trip through JSON, with its
            keys in any order.
        overrides: options that replace those of the configuration, by name. Every option that the configuration
            marks as missing must be here. A plain name fills the option in wherever it is missing, including in
            contained quantizers; a path names a single option: `rebuild(c, **{"stages.1.gradient": function})`.

    Raises: ValueError for a configuration of another format, a class that is not known here, options that its
        constructor does not take, a missing value without an override, and an override that fits no option; and
        the errors of the constructors.
    """
    _check_format(configuration)
    root: Node = copy.deepcopy({**configuration})
    _check_structure(root)
    _apply_overrides(root, overrides)
    missing = {path: ", ".join(missing_values(value)) for path, value in _option_values(root)}
    missing = {path: descriptions for path, descriptions in missing.items() if descriptions}
    if missing:
        first = next(iter(missing)).rpartition(".")[2]
        raise ValueError(
            f"the configuration of {root['quantizer']} is missing values that JSON cannot represent: "
            + "; ".join(f"{path} was {descriptions}" for path, descriptions in missing.items())
            + f". Pass them by name: {first}=..."
        )
    quantizer: Quantizer = _Builder(root).build(root)
    return quantizer


def missing_values(value: Any) -> Iterator[str]:
    """The descriptions of the missing values in an argument, without those inside a contained quantizer."""
    if isinstance(value, dict) and "missing" in value:
        yield str(value["missing"])
    if not _is_quantizer(value):
        for _, child in _children(value):
            yield from missing_values(child)


def is_number(value: object) -> bool:
    """Whether a value is a number or a boolean."""
    return isinstance(value, bool | int | float)


class _OverrideValue:
    """The value of an override, which is used as it is."""

    def __init__(self, value: object) -> None:
        self.value = value


class _Builder:
    """Builds nodes; a node with an id only once."""

    def __init__(self, root: Node) -> None:
        self._shared = {str(node["id"]): node for node in _all_nodes(root) if "id" in node}
        self._built: dict[str, Any] = {}

    def build(self, value: Any) -> Any:
        if isinstance(value, _OverrideValue):
            return value.value
        if isinstance(value, list):
            return [self.build(element) for element in value]
        if not isinstance(value, dict):
            return value
        node_id = value.get("same_as", value.get("id"))
        return self._object(value) if node_id is None else self._once(str(node_id))

    def _once(self, node_id: str) -> Any:
        if node_id not in self._built:
            if node_id not in self._shared:
                raise ValueError(
                    f"the configuration refers to the id {node_id}, expected the id of an object that does not "
                    "contain the reference"
                )
            self._built[node_id] = self._object(self._shared.pop(node_id))
        return self._built[node_id]

    def _object(self, node: Node) -> Any:
        if "quantizer" in node:
            return self._quantizer(node)
        if node.get("module") == SEQUENTIAL:
            sequential = nn.Sequential()
            for name, module in node.get("modules", []):
                sequential.add_module(name, self.build(module))
            return sequential
        for kind in KINDS:
            if kind in node:
                return self._call(_allowed_class(kind, node[kind]), node)
        if "mapping" in node:
            return {name: self.build(value) for name, value in node["mapping"]}
        if node.get("float") in ("inf", "-inf", "nan"):
            return float(node["float"])
        raise ValueError(f"the configuration contains {node!r}, which is not an object of its format")

    def _quantizer(self, node: Node) -> Any:
        quantizer = self._call(quantizer_class(node["quantizer"]), node)
        for name, value in node.get("assigned", {}).items():
            number = self.build(value)
            if name not in quantizer.assignable or not is_number(number):
                raise ValueError(
                    f"the configuration assigns {number!r} to {name}, expected a number for one of "
                    f"{', '.join(quantizer.assignable)}"
                )
            setattr(quantizer, name, number)
        return quantizer

    def _call(self, cls: Callable[..., Any], node: Node) -> Any:
        positional = self.build(node.get("positional", []))
        named = {name: self.build(value) for name, value in node.get("arguments", {}).items()}
        try:
            signature_of(cls).bind(*positional, **named)
        except TypeError as error:
            raise ValueError(
                f"the configuration's options do not fit the constructor of {cls.__name__}: {error}"
            ) from error
        return cls(*positional, **named)


def _check_format(configuration: Mapping[str, Any]) -> None:
    from quantizers.version import __version__

    if not isinstance(configuration, Mapping) or not {"format", "quantizer", "arguments"} <= configuration.keys():
        raise ValueError(
            f"configuration is {shown(configuration)}, expected a quantizer's configuration, with the keys "
            "'format', 'quantizer' and 'arguments'"
        )
    if configuration["format"] != FORMAT:
        raise ValueError(
            f"the configuration has format {configuration['format']!r}, expected {FORMAT}: quantizers-torch "
            f"{configuration.get('version')} wrote it, and this is version {__version__}"
        )


def _check_structure(value: Any) -> None:
    """Raises: ValueError for an object whose entries do not have the types of the format."""
    if isinstance(value, dict) and not _has_entry_types(value):
        raise ValueError(f"the configuration contains {value!r}, with entries of the wrong types")
    for _, child in _children(value):
        _check_structure(child)


def _has_entry_types(node: Node) -> bool:
    if not all(isinstance(node[key], ENTRY_TYPES[key]) for key in node.keys() & ENTRY_TYPES.keys()):
        return False
    pairs = [pair for key in PAIRS for pair in node.get(key, [])]
    return all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs)


def _allowed_class(kind: str, name: Any) -> type:
    classes = allowed_classes(kind)
    if name not in classes:
        raise ValueError(
            f"the configuration has the {kind} {name!r}, expected one of {', '.join(classes)}. If it is your own "
            "class, decorate it with quantizers.configurable, and import its module first"
        )
    return classes[name]


def _apply_overrides(root: Node, overrides: Mapping[str, Any]) -> None:
    """Replace the options that the overrides name."""
    used = set()
    for prefix, node in [*_quantizer_nodes(root, "")]:
        for name, value in node.get("arguments", {}).items():
            path = f"{prefix}{name}"
            key = name if path not in overrides and any(missing_values(value)) else path
            if key in overrides:
                _override_option(node, name, overrides[key])
                used.add(key)
    for name in overrides.keys() - used:
        if not _takes_option(quantizer_class(root["quantizer"]), name):  # or it is newer than the configuration
            paths = ", ".join(path for path, _ in _option_values(root))
            raise ValueError(
                f"this {root['quantizer']} has no option {name!r} to override, expected one of {paths}"
            )
        _override_option(root, name, overrides[name])


def _override_option(node: Node, name: str, value: object) -> None:
    node["arguments"][name] = _OverrideValue(value)
    node.get("assigned", {}).pop(name, None)


def _takes_option(cls: type, name: str) -> bool:
    parameters = signature_of(cls).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return name in parameters or (takes_any and name.isidentifier())


def _option_values(root: Node) -> Iterator[tuple[str, Any]]:
    """The path and value of each argument of each quantizer."""
    for prefix, node in _quantizer_nodes(root, ""):
        for name, value in _children(node):
            yield f"{prefix}{name}", value


def _quantizer_nodes(value: Any, prefix: str) -> Iterator[tuple[str, Node]]:
    """The nodes of quantizers, each with the prefix of its options' paths."""
    if _is_quantizer(value):
        yield prefix, value
    for name, child in _children(value):
        yield from _quantizer_nodes(child, f"{prefix}{name}.")


def _all_nodes(value: Any) -> Iterator[Node]:
    """Every object in a configuration."""
    if isinstance(value, dict):
        yield value
    for _, child in _children(value):
        yield from _all_nodes(child)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The values directly inside a list or an object, with their names in a path."""
    if isinstance(value, list):
        yield from ((str(position), child) for position, child in enumerate(value))
    if isinstance(value, dict):
        yield from ((str(position), child) for position, child in enumerate(value.get("positional", [])))
        yield from value.get("arguments", {}).items()
        yield from (pair for key in PAIRS for pair in value.get(key, []))


def _is_quantizer(value: Any) -> bool:
    return isinstance(value, dict) and "quantizer" in value
