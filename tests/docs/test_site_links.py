"""Links to files of the repository lead into the site, and those that lead nowhere are errors."""

from pathlib import Path

import pytest

from docs._hooks import links, repository
from docs._hooks.places import site_path
from docs._hooks.repository import BrokenLink

CODE = """
`[a](../code.py)` and ``[b](../`code.py)``

```text
[c](../code.py)
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one file of results and one page."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bars.png").write_bytes(b"")
    (tmp_path / "results" / "table.md").write_text("![Bars](bars.png)")
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_links_in_code_are_no_links() -> None:
    assert list(links.targets(CODE)) == []
    assert links.changed(CODE, lambda target: "x") == CODE
    assert list(links.targets("a ` alone\n\n[d](e.md) `code`")) == ["e.md"]


@pytest.mark.parametrize(
    "markdown",
    [
        "[text](TARGET)",
        "![text](TARGET)",
        '[`a`](TARGET "title")',
        "[![b](TARGET)](TARGET)",
        "[c]: TARGET",
        "| [d](TARGET) |",
    ],
)
def test_links_are_found_and_changed(markdown: str) -> None:
    before = markdown.replace("TARGET", "../a_(b).md#c")
    assert set(links.targets(before)) == {"../a_(b).md#c"}
    assert links.changed(before, lambda target: "new.md") == markdown.replace("TARGET", "new.md")


@pytest.mark.parametrize("target", ["https://example.org/a", "mailto:a@b", "#anchor", "/absolute", "//host/a"])
def test_other_addresses_stay(target: str, root: Path) -> None:
    assert not links.is_relative(target)
    assert repository.into_site(f"[a]({target})", "page.md", root) == f"[a]({target})"


def test_links_between_pages_stay(root: Path) -> None:
    for target in ("other.md#part", "../page.md", "images/a.png"):
        assert repository.into_site(f"[a]({target})", "folder/page.md", root) == f"[a]({target})"


def test_a_file_outside_docs_is_copied_and_linked(root: Path) -> None:
    markdown = "![Bars](../../results/bars.png)"
    assert repository.copies(markdown, "folder/page.md", root) == {"results/bars.png"}
    assert repository.into_site(markdown, "folder/page.md", root) == "![Bars](../repository/results/bars.png)"


def test_a_moved_page_keeps_its_links(root: Path) -> None:
    page = site_path("results/table.md")
    assert page == "repository/results/table.md"
    markdown = repository.moved((root / "results" / "table.md").read_text(), "results/table.md", page)
    assert repository.into_site(markdown, page, root) == "![Bars](bars.png)"


def test_derivations_link_to_each_other_as_pages() -> None:
    markdown = repository.moved("[n](../nearest/README.md#x)", "kernels/soft/README.md", "arithmetic/soft.md")
    assert repository.into_site(markdown, "arithmetic/soft.md") == "[n](nearest.md#x)"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../results/lines.png", "does not exist"),
        ("../results", "directory"),
        ("../../elsewhere.md", "out of the repository"),
    ],
)
def test_what_leads_nowhere_is_an_error(target: str, message: str, root: Path) -> None:
    with pytest.raises(BrokenLink, match=message):
        repository.into_site(f"[a]({target})", "page.md", root)
    with pytest.raises(BrokenLink, match=message):
        repository.copies(f"[a]({target})", "page.md", root)
