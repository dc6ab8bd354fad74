"""Equations become MathML that browsers draw, and those that do not parse are errors."""

from xml.etree import ElementTree

import pytest

from docs._hooks import mathml
from docs._hooks.mathml import EquationError

MATHML = "{http://www.w3.org/1998/Math/MathML}"


def elements(latex: str, name: str, display: str = "block") -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(mathml.to_mathml(latex, display)).iter(MATHML + name))


def test_the_source_of_an_equation_stays_with_it() -> None:
    source = r"\lVert z - e_j \rVert^2 < 1 \text{ & \# }"
    root = ElementTree.fromstring(mathml.to_mathml(source, "inline"))
    assert root.get("alttext") == source
    assert root.get("display") == "inline"


def test_a_page_has_its_equations_in_place() -> None:
    page = (
        '<p>where <span class="arithmatex">\\(a &lt; b\\)</span>:</p>\n<div class="arithmatex">\\[\nx\n\\]</div>'
    )
    rendered = mathml.render(page)
    assert "arithmatex" not in rendered
    assert rendered.count("<math ") == 2
    assert rendered.startswith("<p>where <span ")
    assert 'alttext="a &lt; b"' in rendered


def test_a_number_stands_beside_the_equation() -> None:
    rendered = mathml.block(r"a = b \tag{7}")
    assert '<span class="equation-number">(7)</span>' in rendered
    assert "equation-number" not in mathml.block("a = b")


def test_an_operator_with_limits_is_one_word_above_its_index() -> None:
    (under,) = elements(r"k = \operatorname*{arg\,min}_j d_j", "munder")
    assert (under[0].text, under[0].get("movablelimits")) == ("arg\u2009min", "true")


@pytest.mark.parametrize("latex", [r"\sum_i x", r"\left( \frac1N \sum_n x \right)", r"\max_j x"])
def test_an_index_stands_below_a_sum(latex: str) -> None:
    assert len(elements(latex, "munder")) == 1


def test_a_word_stands_apart_from_letters_alone() -> None:
    applied, alone = (
        elements(r"c \operatorname{fl}(s) \operatorname{sg} z", "mo")[0],
        elements(r"\max_j z", "mo")[0],
    )
    assert (applied.get("lspace"), applied.get("rspace")) == (mathml.THIN, "0")
    assert (alone.get("lspace"), alone.get("rspace")) == ("0", mathml.THIN)


def test_aligned_rows_are_a_table() -> None:
    latex = r"\begin{aligned} a &= b \\ c &= d \end{aligned}"
    assert len(elements(latex, "mtr")) == 2
    assert {cell.get("style") for cell in elements(latex, "mtd")} == {"text-align: right", "text-align: left"}


def test_bold_letters_are_characters() -> None:
    assert elements(r"\mathbf{e}", "mi")[0].text == "𝐞"
    assert elements(r"\mathbf{1}", "mn")[0].text == "𝟏"


@pytest.mark.parametrize(
    "latex",
    ["", r"\unknown x", r"\frac{a", r"\frac{a}", "x_{", r"\left( x", "a & b", "a } b", r"\begin{aligned} a", "x^"],
)
def test_what_does_not_parse_is_an_error(latex: str) -> None:
    with pytest.raises(EquationError):
        mathml.to_mathml(latex, "block")


@pytest.mark.parametrize("text", ["a $$ b $$ c", r"$ \frac{a}{b} $"])
def test_an_equation_that_stays_text_is_an_error(text: str) -> None:
    with pytest.raises(EquationError, match="left as text"):
        mathml.render(f"<p>{text}</p>")
    assert mathml.render(f"<code>{text}</code>") == f"<code>{text}</code>"


def test_two_numbers_are_an_error() -> None:
    with pytest.raises(EquationError, match="several numbers"):
        mathml.block(r"a \tag{1} b \tag{2}")
