"""The site builds without a warning, needs no network, and has what it promises."""

import os
import re

import pytest
from filelock import FileLock

import quantizers
from docs._hooks import method_pages
from tests.docs import site
from tests.docs.packages import ROOT
from tests.docs.site import Built
from tests.docs.test_readme import registered_by_the_library

pytestmark = pytest.mark.slow

HEADINGS = ["Equation", "Shapes", "Options", "In the benchmark", "Used by", "Example"]
METHODS = ROOT / "docs" / "methods"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site, which the workers of pytest-xdist build once and share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, printed = shared / "site", shared / "site.txt"
    with FileLock(shared / "site.lock"):
        if not printed.is_file():
            made = site.build(folder)
            printed.write_text(f"{made.status}\n{made.output}")
    status, _, output = printed.read_text().partition("\n")
    return Built(folder, int(status), output)


def test_the_site_builds_without_a_warning(built: Built) -> None:
    assert built.status == 0, built.output
    lines = [line for line in built.output.splitlines() if not line.startswith("INFO ")]
    assert not lines, built.output


def test_every_address_within_the_site_leads_somewhere(built: Built) -> None:
    assert not list(site.broken(built.folder))


def test_pages_load_nothing_from_the_network(built: Built) -> None:
    for page in built.folder.rglob("*.html"):
        loaded = [each for each in site.addresses(page)[0] if each.element != "a"]
        assert loaded
        assert not [each for each in loaded if site.is_external(each.target)], page
    for sheet in built.folder.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_equations_are_rendered(built: Built) -> None:
    for page in site.pages(built.folder):
        assert 'class="arithmatex"' not in page.read_text(), page


def test_every_page_for_language_models_exists(built: Built) -> None:
    listed = re.findall(r"^- \[.+?\]\(([^)]+)\)", (built.folder / "llms.txt").read_text(), re.M)
    assert listed
    assert [target for target in listed if not (built.folder / target).is_file()] == []
    assert (built.folder / "llms-full.txt").read_text().count("\n# ") >= len(listed) // 2


def test_the_reference_has_every_public_name(built: Built) -> None:
    """A hook checks this and more when the site is built, see test_site_docstrings.py. This shows that it ran."""
    described: set[str] = set()
    for page in (built.folder / "reference").glob("*.html"):
        described |= site.addresses(page)[1]
    last = {name.rpartition(".")[2] for name in described if name.startswith("quantizers.")}
    assert set(quantizers.__all__) - last == set()


@pytest.mark.parametrize("name", registered_by_the_library())
def test_every_method_has_a_page(name: str, built: Built) -> None:
    source = (METHODS / f"{name}.md").read_text()
    headings = re.findall(r"^## (.+)$", source, re.M)
    assert [heading for heading in headings if heading in HEADINGS] == HEADINGS
    assert re.match(rf"# .+ \(`{name}`\)\n", source)
    assert f"(images/{name}.png)" in source
    assert (METHODS / "images" / f"{name}.png").is_file()
    page = (built.folder / "methods" / f"{name}.html").read_text()
    assert not [part for part in method_pages.PARTS if f"<!-- {part} -->" in page]
