"""`import quantizers` imports what every program needs; everything else when it is first asked for."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import quantizers

PACKAGE = Path(quantizers.__file__)


def lazy_imports() -> dict[str, str]:
    """The names that `quantizers/__init__.py` imports for type checkers alone, and where it imports them from."""
    conditions = [node for node in ast.parse(PACKAGE.read_text()).body if isinstance(node, ast.If)]
    (block,) = (node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


@pytest.mark.parametrize("name", sorted({*quantizers.__all__, *quantizers._LAZY}))
def test_every_public_name_exists(name: str) -> None:
    assert getattr(quantizers, name) is getattr(quantizers, name)
    assert name in dir(quantizers)


@pytest.mark.parametrize(("name", "module"), lazy_imports().items())
def test_type_checkers_see_what_programs_get(name: str, module: str) -> None:
    source = importlib.import_module(module)
    expected = getattr(source, name) if hasattr(source, name) else importlib.import_module(f"{module}.{name}")
    assert getattr(quantizers, name) is expected


def test_what_type_checkers_see_is_public() -> None:
    assert set(quantizers._LAZY) & set(quantizers.__all__) == set(lazy_imports())


def test_packages_are_imported_when_they_are_asked_for() -> None:
    program = (
        "import json, sys, torch; before = set(sys.modules); import quantizers;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    packages = {".".join(name.split(".")[:2]) for name in json.loads(printed)}
    used_by_methods = {"quantizers.clustering"}
    lazy = {".".join(path.split(":")[0].split(".")[:2]) for path in quantizers._LAZY.values()}
    assert lazy - used_by_methods
    assert not packages & (lazy - used_by_methods)


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="'quantizers' has no attribute 'vectorquantizer'"):
        quantizers.vectorquantizer  # noqa: B018
