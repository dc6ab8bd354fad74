"""The equations in the derivations of the kernels and on the pages in docs/ are LaTeX that can be rendered."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DISPLAYED

pytest.importorskip("latex2mathml")  # of the extra that builds the site
from docs._hooks import mathml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder, pattern in (("kernels", "README.md"), ("docs", "*.md"))
    for path in (ROOT / folder).rglob(pattern)
)
ESCAPES = re.compile(r"\\[^a-zA-Z]")
"""Commands of one sign, such as a thin space, of which GitHub's Markdown takes the backslash away."""


def equations(text: str) -> list[str]:
    """The displayed equations of a page, then the ones within lines; code is left out."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.M | re.S)
    text = re.sub(r"(`+)[^`]+\1", "", text)
    return DISPLAYED.findall(text) + re.findall(r"\$([^$\n]+)\$", DISPLAYED.sub("", text))


def problem_of(equation: str) -> str | None:
    """What is wrong with an equation; None if the site renders it."""
    try:
        mathml.block(equation)
    except mathml.EquationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_equation_can_be_rendered(page: str) -> None:
    found = equations((ROOT / page).read_text())
    assert [problem for problem in map(problem_of, found) if problem] == []


def test_the_derivations_contain_nothing_that_github_changes() -> None:
    count = 0
    for page in PAGES:
        if not page.startswith("kernels"):
            continue
        found = equations((ROOT / page).read_text())
        count += len(found)
        assert [equation for equation in found if ESCAPES.search(equation)] == [], page
        assert [equation for equation in found if equation != equation.strip() and "tag" not in equation] == [], (
            page
        )
    assert count > 200


def test_what_cannot_be_rendered_is_seen() -> None:
    text = "Let $\\frac{1}$ be `$\\code$`, and\n\n$$\na^2 \\tag{1}\n$$\n\n```\n$\\frac$\n```\n"
    assert equations(text) == ["a^2 \\tag{1}", "\\frac{1}"]
    assert problem_of("\\frac{1}")
    assert problem_of("\\unheardof{x}")
    assert problem_of("\\lVert x \\rVert \\tag{12}") is None
