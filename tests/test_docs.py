"""The code in README.md and CONTRIBUTING.md runs, and the tables name what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import quantizers

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def blocks(document: str) -> list[str]:
    return CODE.findall((ROOT / document).read_text())


@pytest.mark.parametrize("number", range(len(blocks("README.md"))))
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # PyTorch's own
def test_readme_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block alone, as a reader would paste it."""
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("README.md")[number], f"README.md block {number}", "exec"), {"__name__": "readme"})


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


def test_readme_lists_every_quantizer() -> None:
    text = (ROOT / "README.md").read_text()
    for name in quantizers.available():
        assert re.search(rf"^\| `{name}` \|", text, re.M), f"README's table has no row for {name}"


def test_links_lead_somewhere() -> None:
    for document in ["README.md", "CONTRIBUTING.md", "kernels/README.md", "tests/README.md"]:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
            assert (folder / target).exists(), f"{document} links to {target}"


def test_the_tests_that_are_named_exist() -> None:
    """`file::test`, or `::test` for one of the file named before it."""
    folder, path = ROOT / "tests", Path()
    named = re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", (folder / "README.md").read_text())
    assert len(named) > 50
    for file, test in named:
        path = folder / file if file else path
        assert re.search(rf"^def {test}\(", path.read_text(), re.M), f"{path.name} has no {test}"
