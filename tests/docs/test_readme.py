"""The code in README.md, CONTRIBUTING.md and the pages in docs/ runs, and the tables name what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import quantizers
from quantizers.core.registry import _BUILDERS

HEADING = "\n## Comparison with other libraries\n"
ROOT = Path(__file__).parents[2]
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))


def blocks(document: str) -> list[str]:
    return CODE.findall((ROOT / document).read_text())


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


def test_readme_lists_every_quantizer() -> None:
    text = (ROOT / "README.md").read_text()
    for name in registered_by_the_library():
        assert re.search(rf"^\| `{name}` \|", text, re.M), f"README's table has no row for {name}"


def test_the_page_of_models_lists_every_contract() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("|"))
    for name in quantizers.adapters.available_contracts():
        assert f"`{name}`" in rows, f"the tables have no contract {name}"


def test_links_lead_somewhere() -> None:
    kernels = [path.relative_to(ROOT) for path in (ROOT / "kernels").rglob("README.md")]
    for document in ["README.md", "CONTRIBUTING.md", "tests/README.md", *PAGES, *kernels]:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", (ROOT / document).read_text()):
            assert (folder / target).exists(), f"{document} links to {target}"


def equations(document: Path) -> list[int]:
    """The numbers of the equations that a derivation displays, in order."""
    return [int(number) for number in re.findall(r"^ {4,}\((\d+)\)  ", document.read_text(), re.M)]


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


def feature_problems(document: str, root: Path = ROOT) -> list[str]:
    """What is wrong with the table of features in a document, a sentence each.

    The second cell of a row is ours: "–" for what there is not, or links [text](file "test") that hold it. A row
    whose first cell is bold is a head.
    """
    section = re.search(rf"^{HEADING.strip()}$(.*?)(?=^## |\Z)", document, re.M | re.S)
    lines = section[1].strip().splitlines() if section else []
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = [row for row in table[2:] if not row[0].startswith("**")]
    problems = [] if rows else ["there is no table"]
    for feature, ours, *others in rows:
        if not all(others) or len(others) != len(table[0]) - 2:
            problems.append(f"{feature}: a library has no cell")
        if ours != "–" and not re.fullmatch(r"\[[^]]+\]\([^)]+\)(, \[[^]]+\]\([^)]+\))*", ours):
            problems.append(f"{feature}: our cell is {ours!r}, neither links nor –")
        for file, test in re.findall(r"\]\(([^)\s]*)([^)]*)\)", ours):
            name, path = test.strip(' "'), root / file
            if not (path.is_file() and re.search(rf"^def {name}\(", path.read_text(), re.M)):
                problems.append(f"{feature}: {file} has no test named {name!r}")
    return problems


def test_features_are_held_by_the_tests_that_are_linked() -> None:
    (document,) = [text for path in ROOT.glob("*.md") if HEADING in (text := f"\n{path.read_text()}")]
    assert feature_problems(document) == []


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        ('[yes](tests/docs/test_readme.py "test_readme_runs")', ""),
        (
            '[a](tests/docs/test_readme.py "test_readme_runs"), '
            '[b](tests/docs/test_readme.py "test_links_lead_somewhere")',
            "",
        ),
        ("–", ""),
        ("", "neither links nor –"),
        ("yes", "neither links nor –"),
        ("[yes](tests/docs/test_readme.py)", "no test named ''"),
        ('[yes](tests/docs/test_readme.py "test_readme")', "no test named 'test_readme'"),
        ('[yes](tests/test_doc.py "test_readme_runs")', "tests/test_doc.py has no test"),
        (
            '[a](tests/docs/test_readme.py "test_readme_runs"), [b](tests/docs/test_readme.py "test_b")',
            "no test named 'test_b'",
        ),
    ],
)
def test_what_is_wrong_with_a_feature_is_seen(ours: str, problem: str) -> None:
    head = f"# Title{HEADING}\n| | here | there |\n|---|---|---|\n| **Interface** | | |\n"
    found = feature_problems(f"{head}| masks | {ours} | – |\n\n## Next\n| other | table |\n")
    assert len(found) == bool(problem)
    assert problem in "".join(found)
    assert feature_problems(f"{head}| masks | – | |\n") == ["masks: a library has no cell"]
    assert feature_problems("# Title\n| a | b |\n") == feature_problems(head) == ["there is no table"]
