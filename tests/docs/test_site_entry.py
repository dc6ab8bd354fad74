"""What is wrong with a page becomes a warning of MkDocs, which fails a strict build."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from docs._hooks import entry

CONFIG: Any = SimpleNamespace(docs_dir="docs")


def page(path: str) -> Any:
    return SimpleNamespace(file=SimpleNamespace(src_uri=path))


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The messages that a strict build counts: those of loggers below "mkdocs"."""
    assert entry.log.name.startswith("mkdocs.")
    caplog.set_level("WARNING", logger=entry.log.name)
    return caplog


def test_a_link_that_leads_nowhere(warned: pytest.LogCaptureFixture) -> None:
    entry.on_page_markdown("![A](../missing.png)", page=page("a.md"), config=CONFIG, files=CONFIG)
    assert warned.messages == ["a.md: the link '../missing.png' leads to missing.png, which does not exist"]


def test_an_equation_that_does_not_parse(warned: pytest.LogCaptureFixture) -> None:
    content = '<span class="arithmatex">\\(\\nonsense\\)</span>'
    entry.on_page_content(content, page=page("a.md"), config=CONFIG, files=CONFIG)
    assert warned.messages == [r"a.md: '\\nonsense' is not understood in the equation \nonsense"]


def test_public_names_without_an_entry(warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_described", set())
    entry.on_env(None, config=CONFIG, files=CONFIG)
    assert "quantizers.FSQ has no entry in the reference" in warned.messages


def test_a_guide_without_a_title(
    warned: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "bad.py").write_text("# %%\nx = 1\n")
    monkeypatch.setenv("DOCS_EXECUTE", "0")
    assert list(entry._guides(SimpleNamespace(docs_dir=str(tmp_path)))) == []  # type: ignore[arg-type]
    assert warned.messages[0].startswith("bad.py begins with")
