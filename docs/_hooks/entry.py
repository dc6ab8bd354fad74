"""The hooks of MkDocs: each calls one of the modules beside this one, and reports what is wrong with a page."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

from docs._hooks import llms, mathml, method_pages, notebooks, public_names, repository
from docs._hooks.places import PAGES, ROOT, arithmetic_sources, site_path

log = logging.getLogger("mkdocs.hooks.site")  # a warning below "mkdocs" fails a strict build

INCLUDED = InclusionLevel.INCLUDED  # although exclude_docs names Python files
NOT_IN_NAV = InclusionLevel.NOT_IN_NAV

_pages: dict[str, str] = {}  # the Markdown of each page, by its source
_described: set[str] = set()  # the objects that the reference describes
_entries: list[tuple[str, Page]] = []  # the pages in the order of the navigation, with their section


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files, and the files of the repository that pages link to."""
    for state in (_pages, _described, _entries):
        state.clear()
    for file in [*_guides(config), *_arithmetic(config), _changelog(config)]:
        files.append(file)
    _add_linked(files, config)
    return files


def _guides(config: MkDocsConfig) -> Iterator[File]:
    for source in sorted(Path(config.docs_dir, "guides").glob("*.py")):
        try:
            notebook = notebooks.executed(source) if notebooks.executes() else notebooks.read(source)
            page = notebooks.page(notebook, source.stem)
        except notebooks.NotebookError as error:
            log.error("%s", error)
            continue
        sources = {f"{source.stem}.md": page.markdown, source.name: source.read_text()}
        for name, content in {**sources, **page.files}.items():
            yield File.generated(config, f"guides/{name}", content=content, inclusion=INCLUDED)


def _arithmetic(config: MkDocsConfig) -> Iterator[File]:
    for page, source in arithmetic_sources().items():
        yield _moved(config, source, page)


def _changelog(config: MkDocsConfig) -> File:
    return _moved(config, "CHANGELOG.md", PAGES["CHANGELOG.md"])


def _moved(config: MkDocsConfig, source: str, page: str, inclusion: InclusionLevel = INCLUDED) -> File:
    text = repository.moved((ROOT / source).read_text(), source, page)
    return File.generated(config, page, content=text, inclusion=inclusion)


def _add_linked(files: Files, config: MkDocsConfig) -> None:
    """Add the files outside docs/ that pages link to, and those that these link to in turn."""
    waiting = [file for file in files if file.is_documentation_page() and file.inclusion.is_included()]
    while waiting:
        page = waiting.pop()
        try:
            needed = repository.copies(page.content_string, page.src_uri)
        except repository.BrokenLink:
            continue  # on_page_markdown says so
        for path in sorted(needed):
            name = site_path(path)
            if files.get_file_from_path(name):
                continue
            if path.endswith(".md"):
                file = _moved(config, path, name, NOT_IN_NAV)
                waiting.append(file)
            else:
                file = File.generated(config, name, abs_src_path=str(ROOT / path), inclusion=INCLUDED)
            files.append(file)


def on_nav(nav: Navigation, *, config: MkDocsConfig, files: Files) -> Navigation:
    """Note the pages in the order of the navigation."""
    for item in nav.items:
        section = item.title or config.site_name
        pages = _pages_of(item) if isinstance(item, Section) else [item]
        _entries.extend((section, page) for page in pages if isinstance(page, Page))
    return nav


def _pages_of(section: Section) -> Iterator[Any]:
    for child in section.children:
        yield from _pages_of(child) if isinstance(child, Section) else [child]


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the parts of method pages, and lead links out of docs/ to the site's copies."""
    path = page.file.src_uri
    try:
        markdown = method_pages.filled(markdown, path)
        markdown = repository.into_site(markdown, path)
    except repository.BrokenLink as error:
        log.warning("%s: %s", path, error)
    _pages[path] = markdown
    return markdown


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Render equations, and note what the reference describes."""
    path = page.file.src_uri
    try:
        content = mathml.render(content)
    except mathml.EquationError as error:
        log.warning("%s: %s", path, error)
    if path.startswith("reference/"):
        _described.update(re.findall(r'\bid="(quantizers[\w.]*)"', content))
    return content


def on_env(env: Any, *, config: MkDocsConfig, files: Files) -> Any:
    """Check that every public name is documented."""
    mentioned = public_names.mentions(public_names.documentation())
    for problem in public_names.problems(public_names.public_names(mentioned), _described):
        log.warning("%s", problem)
    return env


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write llms.txt and llms-full.txt."""
    entries = [
        llms.Entry(section, str(page.title), page.url, _pages[page.file.src_uri]) for section, page in _entries
    ]
    summary = config.site_description or ""
    Path(config.site_dir, "llms.txt").write_text(llms.index(config.site_name, summary, entries))
    Path(config.site_dir, "llms-full.txt").write_text(llms.full(entries))
