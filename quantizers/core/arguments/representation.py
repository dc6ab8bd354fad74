"""The `repr` of a quantizer: options that differ from their defaults, at their current values, and its parts."""

import inspect
import textwrap
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from quantizers.core.arguments.checks import plain
from quantizers.core.arguments.construction import (
    Construction,
    RecordedConstruction,
    Unserializable,
    to_serializable,
)
from quantizers.core.arguments.options import NAMED

SIZES = ("dim", "codebook_size", "code_dim")
"""`Quantizer.extra_repr` shows these first, from the attributes of these names."""


def module_repr(module: nn.Module) -> str:
    """The `repr` that nn.Module gives, without children that do nothing: an nn.Identity, an empty ModuleList."""
    children = [
        f"({name}): {child!r}"
        for name, child in module.named_children()
        if not isinstance(child, nn.Identity) and not (isinstance(child, nn.ModuleList) and len(child) == 0)
    ]
    name, options = type(module).__name__, module.extra_repr()
    if not children:
        return f"{name}({options})"
    inside = textwrap.indent("\n".join([options, *children]), "  ")
    return f"{name}(\n{inside}\n)"


def options_in_repr(quantizer: RecordedConstruction, always: Collection[str]) -> str:
    """Format as `name=value, ...` the options that differ from their defaults, then nonzero ones in `always`.

    Sizes and modules are left out, since the `repr` of a quantizer shows them anyway. So are tensors that
    became state.
    """
    recorded = {
        name: pair
        for name, pair in _arguments(quantizer._construction).items()
        if isinstance(pair[0], bool) or name not in quantizer._options_in_state()
    }
    shown = {name: _current(quantizer, name, value) for name, (value, _) in recorded.items()}
    changed = [name for name, (_, default) in recorded.items() if shown[name] != default]
    others = [name for name in recorded if name in always and name not in changed and shown[name] != 0]
    return ", ".join(f"{name}={_text(shown[name])}" for name in [*changed, *others])


def _arguments(made: Construction) -> dict[str, tuple[Any, Any]]:
    """The named arguments of a constructor without its sizes and modules, each with its default."""
    signature = inspect.signature(made.of.__init__)
    try:
        bound = signature.bind(None, *made.positional, **made.named)
    except TypeError:  # the constructor did not run: an old pickle
        return {}
    pairs = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind in NAMED and name not in SIZES:
            default = to_serializable(parameter.default)
            pairs[name] = bound.arguments.get(name, default), default
    return {name: pair for name, pair in pairs.items() if not _has_module(pair[0])}


def _has_module(value: Any) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, list) and any(map(_has_module, value)))


def _current(quantizer: RecordedConstruction, name: str, recorded: Any) -> Any:
    """The value of a number that was assigned after construction; else the recorded one."""
    value = getattr(quantizer, name, None)
    if name == "process_group":  # as in a configuration, any group is "world"
        return None if value is None else "world"
    if not isinstance(recorded, int | float) or (isinstance(value, Tensor) and value.is_meta):
        return recorded
    if isinstance(value, Tensor):  # state, such as a temperature in float32
        return float(f"{value.item():.6g}")
    return plain(value) if isinstance(plain(value), int | float) else recorded


def _text(value: Any) -> str:
    return value.description if isinstance(value, Unserializable) else repr(value)
