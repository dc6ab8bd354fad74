"""The guides in docs/guides/ are notebooks in jupytext's percent format, which run as plain Python, too.

Each runs in a process of its own, as a reader would run it, in an empty folder and without a network. Warnings are
errors, and nothing may be written to stderr, because the site shows it.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.docs.run_guide import compiled

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "guides"
GUIDES = sorted(FOLDER.glob("*.py"))
SECONDS = 300  # on a busy machine; alone, a guide takes 20


def missing_packages(guide: Path) -> list[str]:
    """The packages that a guide imports and that are not installed."""
    nodes = list(ast.walk(ast.parse(guide.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = sorted({name.partition(".")[0] for name in names})
    return [top for top in tops if importlib.util.find_spec(top) is None]


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_runs(guide: Path, tmp_path: Path) -> None:
    if missing := missing_packages(guide):
        pytest.skip(f"needs {', '.join(missing)}")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    environment.pop("DISPLAY", None)  # Agg warns that it cannot show figures where there is a display
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.run_guide", guide],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines, "a guide prints what it measures"
    assert max(map(len, lines)) <= 120, "a longer line does not fit a page"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_begins_with_its_title(guide: Path) -> None:
    marker, title, *_ = guide.read_text().splitlines()
    assert marker == "# %% [markdown]"
    assert title.startswith("# # ")


@pytest.mark.parametrize(("line", "shown"), [("abs(-1)", True), ("print(1)", False), ("one = abs(-1)", False)])
def test_a_value_that_only_a_notebook_shows_is_an_error(line: str, shown: bool) -> None:
    code = compiled(f"# %% [markdown]\n# # Title\n\n# %%\nabs(-2)\n{line}\n\n# %%\nprint(2)\n", "guide.py")
    expected = pytest.raises(AssertionError, match=r"shows the value of abs\(-1\)") if shown else nullcontext()
    with expected as error:
        exec(code, {})
    if error:
        assert error.traceback[-1].lineno + 1 == 6


def test_a_guide_that_connects_fails(tmp_path: Path) -> None:
    guide = tmp_path / "guide.py"
    guide.write_text("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_guide", guide], cwd=ROOT, capture_output=True, text=True
    )
    assert "a guide connects to ('192.0.2.1', 80)" in done.stderr


def test_the_list_of_guides_names_each() -> None:
    text = (FOLDER / "index.md").read_text()
    assert GUIDES
    for guide in GUIDES:
        assert f"]({guide.stem}.md)" in text, f"docs/guides/index.md has no {guide.stem}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_needs_nothing_of_this_repository(guide: Path) -> None:
    """A reader copies the file alone."""
    for package in ("benchmarks", "tests"):
        assert not re.search(rf"^\s*(from|import) {package}\b", guide.read_text(), re.M)
