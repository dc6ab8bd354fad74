"""Guides become pages with their outputs, and those that fail, or write to stderr, are errors."""

from pathlib import Path

import nbformat
import pytest

from docs._hooks import notebooks
from docs._hooks.notebooks import NotebookError
from tests.docs.packages import ROOT

GUIDE = """\
# %% [markdown]
# # A title
#
# Words.

# %%
import sys
from importlib.util import find_spec
print(find_spec("quantizers").origin)

# %% [markdown]
# ## A figure

# %%
import matplotlib.pyplot as plt
figure = plt.plot([1, 2])
"""


def guide(folder: Path, text: str = GUIDE) -> Path:
    path = folder / "guide.py"
    path.write_text(text)
    return path


def test_a_guide_without_outputs(tmp_path: Path) -> None:
    page = notebooks.page(notebooks.read(guide(tmp_path)), "guide")
    assert page.markdown.startswith("# A title\n\nThis page is a notebook: [download it](guide.ipynb), ")
    assert "Words.\n\n``` python\nimport sys\n" in page.markdown
    assert list(page.files) == ["guide.ipynb"]
    nbformat.validate(nbformat.reads(page.files["guide.ipynb"].decode(), as_version=4))


@pytest.mark.slow
def test_a_guide_is_run_once(tmp_path: Path) -> None:
    """In one test, since a kernel takes seconds to start."""
    cache = tmp_path / "cache"
    source = guide(tmp_path)
    notebook = notebooks.executed(source, cache=cache)
    page = notebooks.page(notebook, "guide")
    assert f"\n{ROOT / 'quantizers' / '__init__.py'}\n" in page.markdown
    assert "![Figure: A figure](guide-3-0.png)" in page.markdown
    assert page.files["guide-3-0.png"].startswith(b"\x89PNG")
    (stored,) = cache.iterdir()
    written = stored.stat().st_mtime_ns
    assert notebooks.executed(source, cache=cache).cells == notebook.cells
    assert stored.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('no', file=sys.stderr)", "writes to stderr:\nno"),
        ("1 / 0", r"fails:[\s\S]*ZeroDivisionError"),
    ],
)
def test_a_guide_that_goes_wrong_is_an_error(code: str, message: str, tmp_path: Path) -> None:
    source = guide(tmp_path, f"# %% [markdown]\n# # A title\n\n# %%\n{code}\n")
    with pytest.raises(NotebookError, match=f"guide.py {message}"):
        notebooks.executed(source, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_guide_without_a_title_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="begins with"):
        notebooks.page(notebooks.read(guide(tmp_path, "# %%\nx = 1\n")), "guide")


def test_what_the_outputs_depend_on(tmp_path: Path) -> None:
    (tmp_path / "quantizers").mkdir()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "quantizers" / "a.py").write_text("")
    source = guide(tmp_path)
    first = notebooks._digest(source, tmp_path)
    assert notebooks._digest(source, tmp_path) == first
    (tmp_path / "quantizers" / "a.py").write_text("1")
    second = notebooks._digest(source, tmp_path)
    assert second != first
    source.write_text(GUIDE + "\n")
    assert notebooks._digest(source, tmp_path) not in (first, second)
