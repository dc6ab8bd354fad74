"""The packages form layers, and the imports between modules form no circle.

The imports are read from the source with `ast`, those inside functions included.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = [
    {"version", "minimum_torch", "kernels"},
    {"core"},
    {"clustering", "vectors"},
    {"codebooks", "scalar"},
    {"composite"},
    {"training", "monitoring", "bitstream", "presets"},
    {"fitting", "diagnosis"},
    {"serialization"},
    {"adapters", "export", "item_ids"},
    {"cli"},
    {"__main__"},
]
"""From the bottom to the top. A package imports itself and what lies in layers below its own."""

REASONS = {
    "core": "it is what every quantizer stands on, so it knows none of them",
    "clustering": "codebooks start from it, so it knows no codebook",
    "codebooks": "a method knows what it is made of, not what is made of it, nor how it is trained or saved",
    "scalar": "a method knows what it is made of, not what is made of it, nor how it is trained or saved",
    "composite": "a composition holds any quantizer, and knows nothing of how it is trained or saved",
    "training": "it acts on any quantizer through the interface in core",
    "monitoring": "it watches any quantizer through the interface in core",
    "bitstream": "it codes the indices of any quantizer through the interface in core",
    "presets": "they are data about quantizers, and know nothing of how these are trained or saved",
    "diagnosis": "it measures any quantizer, and knows nothing of how it is saved",
    "vectors": "it reads vectors, and knows nothing of what becomes of them",
    "fitting": "it fits any quantizer with codes, and knows nothing of how it is saved",
    "serialization": "it finds what it may build by registration, so that no class is imported for a file's sake",
    "kernels": "the arithmetic is functions on tensors, which know no module",
}


def sources() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder, prefix in ((ROOT / "quantizers", ()), (ROOT / "kernels", ("quantizers",))):
        for path in folder.rglob("*.py"):
            parts = [*prefix, *path.relative_to(ROOT).with_suffix("").parts]
            if "kernels" in parts and not prefix:
                continue  # the link to ../kernels
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, by dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "quantizers")
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; write the whole name"
            if node.module and node.module.split(".")[0] == "quantizers":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in SOURCES else node.module


def package(module: str) -> str:
    """The package or top-level module that a module belongs to; "" for the top itself."""
    return [*module.split("."), ""][1]


def layer(module: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if package(module) in names]
    assert found, f"{module} belongs to no layer: add its package to LAYERS"
    return found[0]


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"quantizers"}))
def test_imports_point_downwards(module: str) -> None:
    for target in imported(SOURCES[module]):
        if package(target) == package(module):
            continue
        assert target != "quantizers", f"{module} imports the top-level package, which imports everything"
        assert layer(target) < layer(module), (
            f"{module} imports {target}, which is not in a layer below {package(module)}/: "
            f"{REASONS.get(package(module), 'see LAYERS')}"
        )


def test_no_circle() -> None:
    graph = {module: set(imported(path)) - {module} for module, path in SOURCES.items() if module != "quantizers"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("these modules import each other in a circle: " + " → ".join(error.args[1]))


def test_operations_stand_on_what_they_share() -> None:
    """`kernels/common` knows no operation; Triton's kernels are known to their folder and to other kernels."""
    for module, path in SOURCES.items():
        if package(module) != "kernels":
            continue
        folder = module.split(".")[2]
        for target in imported(path):
            operation, *inside = target.split(".")[2:]
            assert operation == "common" or folder != "common", f"{module} imports the operation {target}"
            private = operation not in (folder, "common") and inside and inside[0] == "triton"
            assert not private or module.split(".")[3] == "triton", (
                f"{module} imports {target}, which needs Triton"
            )


def test_every_layer_exists() -> None:
    present = {package(module) for module in SOURCES} - {""}
    assert present == {name for names in LAYERS for name in names}


def test_the_library_imports_none_of_what_surrounds_it() -> None:
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            outside = {name.split(".")[0] for name in names} & {"benchmarks", "tests"}
            assert not outside, f"{module} imports {outside}: a user's installation has neither"
