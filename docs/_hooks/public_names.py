"""The public names of the library: each must have a docstring and an entry in the reference."""

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import quantizers
from docs._hooks.places import ROOT

WITHOUT_LIST = (
    "quantizers.export",
    "quantizers.monitoring.metrics",
    "quantizers.monitoring.usage",
    "quantizers.monitoring.watch",
    "quantizers.serialization.hub",
    "quantizers.serialization.saving",
    "quantizers.training.anchors",
    "quantizers.training.cross_entropy",
    "quantizers.training.dead_codes",
    "quantizers.training.final_means",
    "quantizers.training.splitting",
    "quantizers.training.warm_start",
)
"""The public modules that have no `__all__`."""

INTERNAL = ("quantizers.adapters.contracts", "quantizers.kernels")
"""Packages whose `__all__` is for the library itself."""

_CODE = re.compile(r"^```.*?^```|`[^`\n]+`|^    [^\n]*$", re.MULTILINE | re.DOTALL)


class PublicName(NamedTuple):
    """A name that users import, its value, and the places where the reference may describe it."""

    name: str
    value: object
    places: tuple[str, ...]


def public_names(mentioned: set[str]) -> Iterator[PublicName]:
    """The names of `quantizers`, and those of its public modules.

    Args: mentioned: words that the documentation writes as code. A module without `__all__` makes public what it
        defines under one of these names.
    """
    for name in sorted({*quantizers.__all__, *quantizers._LAZY}):
        yield _named("quantizers", name, getattr(quantizers, name))
    for path in (*with_list(), *WITHOUT_LIST):
        module = importlib.import_module(path)
        for name in _names(module, mentioned):
            yield _named(path, name, getattr(module, name))


def with_list(root: Path = ROOT) -> Iterator[str]:
    """The modules of the library that say with `__all__` what is public, below `quantizers` itself."""
    for path in sorted((root / "quantizers").glob("*/**/*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if re.search(r"^__all__ = ", path.read_text(), re.MULTILINE) and not name.startswith(INTERNAL):
            yield name


def _names(module: ModuleType, mentioned: set[str]) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = (name for name, value in vars(module).items() if _defined_in(value, module))
    return [name for name in defined if not name.startswith("_") and name in mentioned]


def _defined_in(value: object, module: ModuleType) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def _named(module: str, name: str, value: object) -> PublicName:
    return PublicName(f"{module}.{name}", value, (f"{module}.{name}", _home(value)))


def _home(value: object) -> str:
    if inspect.ismodule(value):
        return value.__name__
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def mentions(texts: Iterable[str]) -> set[str]:
    """The words that Markdown texts write as code."""
    return {word for text in texts for code in _CODE.findall(text) for word in re.findall(r"\w+", code)}


def documentation(root: Path = ROOT) -> Iterator[str]:
    """README, CONTRIBUTING, and the site's own pages and guides."""
    yield (root / "README.md").read_text()
    yield (root / "CONTRIBUTING.md").read_text()
    for path in sorted((root / "docs").rglob("*.md")):
        if "reference" not in path.parts:
            yield path.read_text()
    for path in sorted((root / "docs" / "guides").glob("*.py")):
        yield f"```\n{path.read_text()}\n```"


def problems(names: Iterable[PublicName], described: set[str]) -> list[str]:
    """A sentence for each name without a docstring or an entry.

    Args: described: the objects that the reference describes, by their paths.
    """
    found = []
    names = list(names)
    aliases: dict[int, set[str]] = {}
    for public in names:
        aliases.setdefault(id(public.value), set()).update(public.places)
    for public in names:
        if _needs_docstring(public.value) and not inspect.getdoc(public.value):
            found.append(f"{public.name} has no docstring")
        if not described & aliases[id(public.value)]:
            found.append(f"{public.name} has no entry in the reference")
    return found


def _needs_docstring(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
