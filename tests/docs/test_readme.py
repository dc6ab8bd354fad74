"""The code in README.md, CONTRIBUTING.md and the pages in docs/ runs, and the tables name what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import quantizers
from docs._hooks import links
from quantizers.core.registry import _BUILDERS
from tests.docs.pages import DISPLAYED, code_blocks

ROOT = Path(__file__).parents[2]


PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))


def blocks(document: str) -> list[str]:
    return code_blocks((ROOT / document).read_text())


EXAMPLES = [(document, number) for document in ("README.md", *PAGES) for number in range(len(blocks(document)))]


@pytest.mark.parametrize(("document", "number"), EXAMPLES)
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # PyTorch's own
def test_readme_runs(document: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block alone, as a reader would paste it."""
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(document)[number], f"{document} block {number}", "exec"), {"__name__": "readme"})


@pytest.mark.slow
def test_worked_example_keeps_the_contract(tmp_path: Path) -> None:
    """In a process of its own: the example registers itself, and the contract's tests find it by name."""
    (example,) = blocks("CONTRIBUTING.md")
    assert example.count("\n") < 80
    (tmp_path / "fixed.py").write_text(example)
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import fixed, pytest;"
        "sys.exit(pytest.main(['tests/contract', '-k', 'fixed_vq', '-p', 'no:cacheprovider']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sources = [path.read_text() for path in (ROOT / "tests" / "contract").glob("test_*.py")]
    tests = len(re.findall(r"^def test_", "".join(sources), re.M))
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= tests - 1  # type: ignore[index]  # one is of Identity


def registered_by_the_library() -> list[str]:
    builders = {name: getattr(builder, "func", builder) for name, builder in _BUILDERS.items()}
    return [name for name, builder in builders.items() if builder.__module__.startswith("quantizers.")]


def test_the_index_of_methods_lists_every_quantizer() -> None:
    text = (ROOT / "docs" / "methods" / "index.md").read_text()
    for name in registered_by_the_library():
        row = rf"^\| \[`{name}`\]\({name}\.md\) \|"
        assert re.search(row, text, re.M), f"the tables of docs/methods/index.md have no row for {name}"


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


def test_the_page_of_models_lists_every_contract() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("|"))
    for name in quantizers.adapters.available_contracts():
        assert f"`{name}`" in rows, f"the tables have no contract {name}"


def is_there(target: Path) -> bool:
    """Whether a file exists, or is a page that `make docs` makes from a guide, a derivation or the changelog."""
    source = {
        ROOT / "docs": ROOT / f"{target.stem.upper()}.md",
        ROOT / "docs" / "guides": target.with_suffix(".py"),
        ROOT / "docs" / "arithmetic": ROOT / "kernels" / target.stem / "README.md",
    }.get(target.parent.resolve(), target)
    return target.exists() or (target.suffix == ".md" and source.exists())


def test_links_lead_somewhere() -> None:
    kernels = [path.relative_to(ROOT) for path in (ROOT / "kernels").rglob("README.md")]
    for document in ["README.md", "CONTRIBUTING.md", "tests/README.md", *PAGES, *kernels]:
        folder = (ROOT / document).parent
        for target in filter(links.is_relative, links.targets((ROOT / document).read_text())):
            assert is_there(folder / target.partition("#")[0]), f"{document} links to {target}"


def equations(document: Path) -> list[int]:
    """The numbers of the equations that a derivation displays, in order."""
    displayed = DISPLAYED.findall(document.read_text())
    return [int(number) for equation in displayed for number in re.findall(r"\\tag\{(\d+)\}", equation)]


def test_the_equations_of_each_derivation_are_numbered_from_one() -> None:
    found = {path.relative_to(ROOT / "kernels"): equations(path) for path in (ROOT / "kernels").rglob("README.md")}
    assert max(map(len, found.values())) == 22
    for path, numbers in found.items():
        assert numbers == list(range(1, len(numbers) + 1)), path


def test_the_equations_that_the_code_cites_exist() -> None:
    sources = [path for folder in ("kernels", "quantizers", "benchmarks") for path in (ROOT / folder).rglob("*")]
    cited = 0
    for path in sources:
        if path.suffix not in (".py", ".cpp", ".h") or path.is_relative_to(ROOT / "quantizers" / "kernels"):
            continue
        pattern = r"\((\d+)\)(?: (?:to|and) \((\d+)\))? (?:of|in)\s+(kernels/\w+/README\.md)"
        for first, last, document in re.findall(pattern, path.read_text()):
            cited += 1
            assert {int(first), int(last or first)} <= set(equations(ROOT / document)), f"{path} cites {document}"
    assert cited > 20


def test_the_tests_that_are_named_exist() -> None:
    """`file::test`, or `::test` for one of the file named before it."""
    folder, path = ROOT / "tests", Path()
    named = re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", (folder / "README.md").read_text())
    assert len(named) > 50
    for file, test in named:
        path = folder / file if file else path
        assert re.search(rf"^def {test}\(", path.read_text(), re.M), f"{path.name} has no {test}"
