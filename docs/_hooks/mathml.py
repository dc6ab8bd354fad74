"""Equations: LaTeX becomes MathML, which browsers draw without a script."""

import html
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert

_MATHML = "http://www.w3.org/1998/Math/MathML"
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
_OTHER = re.compile(r"<(code|math|script|style)\b.*?</\1>", re.DOTALL)
_SOURCE = re.compile(r"\$\$|\\[a-zA-Z]{3,}")
_TAG = re.compile(r"\\tag\{([^{}]*)\}")
_OPERATOR = re.compile(r"\\operatorname(\*?)\s*\{([^{}]*)\}")
_LIMITS = {"min", "max", "inf", "sup", "lim", "argmin", "argmax", "∑", "∏", "⋃", "⋂"}
_UNDER = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
THIN = "0.167em"
_BARS = {"|", "‖", "⟨", "⟩"}
# Browsers know no other variant than "normal": a bold letter is a character of its own.
_BOLD = {
    "bold": {"A": 0x1D400, "a": 0x1D41A, "0": 0x1D7CE},
    "bold-italic": {"A": 0x1D468, "a": 0x1D482, "0": 0x1D7CE},
}

ElementTree.register_namespace("", _MATHML)


class EquationError(ValueError):
    """An equation that cannot be rendered."""


def render(page: str) -> str:
    """The HTML of a page, with MathML in place of the equations that arithmatex has marked.

    Raises: EquationError for an equation that does not parse, and for one that Markdown has not found.
    """
    page = _BLOCK.sub(lambda found: block(html.unescape(found[1])), page)
    page = _INLINE.sub(lambda found: inline(html.unescape(found[1])), page)
    left = _SOURCE.search(_OTHER.sub("", page))
    if left:
        raise EquationError(f"{left[0]} is left as text: $$ wants a blank line around, and $ no space inside")
    return page


def inline(latex: str) -> str:
    """An equation within a line. Raises: EquationError."""
    return f'<span data-search-exclude="">{to_mathml(latex, "inline")}</span>'


def block(latex: str) -> str:
    r"""A displayed equation, with the number of its \tag at the right. Raises: EquationError."""
    tags = _TAG.findall(latex)
    if len(tags) > 1:
        raise EquationError(f"several numbers in one equation, of which only one can be shown: {latex.strip()}")
    number = f'<span class="equation-number">({html.escape(tags[0])})</span>' if tags else ""
    equation = to_mathml(_TAG.sub("", latex), "block")
    return f'<div class="equation" data-search-exclude="">{equation}{number}</div>'


def to_mathml(latex: str, display: str) -> str:
    """The element <math> of an equation. Raises: EquationError for LaTeX that does not parse."""
    source = latex.strip()
    _check_braces(source)
    plain = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", source)
    plain = _OPERATOR.sub(lambda found: rf"\operatorname{{{_letters(found[2])}}}", plain)
    try:
        text = convert(plain, display=display)
    except Exception as error:  # latex2mathml has a class for each mistake, and IndexError for others
        raise EquationError(f"{type(error).__name__} in the equation {source}") from error
    root = ElementTree.fromstring(re.sub(r"&(?!#|\w+;)", "&amp;", text))
    for element in root.iter():
        _check(element, source)
        _mend(element)
        _space(element)
    root.set("alttext", source)
    return ElementTree.tostring(root, encoding="unicode")


def _check_braces(source: str) -> None:
    bare = re.sub(r"\\.", "", source)
    if bare.count("{") != bare.count("}"):
        raise EquationError(f"unbalanced braces in the equation {source}")


def _check(element: ElementTree.Element, source: str) -> None:
    text = element.text or ""
    if _name(element) != "mtext" and ("\\" in text or text == "&"):
        raise EquationError(f"{text!r} is not understood in the equation {source}")
    if _name(element) in ("mfrac", "mover", "munder", "msub", "msup") and len(element) != 2:
        raise EquationError(f"something is missing in the equation {source}")


def _letters(name: str) -> str:
    # A space would be lost.
    return re.sub(r"\\[,;: ]|\s", "\u2009", name.strip())


def _name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(f"{{{_MATHML}}}")


def _mend(element: ElementTree.Element) -> None:
    """Write what browsers understand: MathML Core is smaller than the language of latex2mathml."""
    name = _name(element)
    if name == "mspace" and "negative" in element.get("width", ""):
        element.set("width", "-0.167em")
    if name == "mtd" and "columnalign" in element.attrib:
        element.set("style", f"text-align: {element.attrib.pop('columnalign')}")
    if name == "mo" and element.text in _BARS and "stretchy" not in element.attrib:
        element.attrib.update(stretchy="false", lspace="0", rspace="0")
    if name in _UNDER and len(element) and (element[0].text or "").replace("\u2009", "") in _LIMITS:
        element.tag = f"{{{_MATHML}}}{_UNDER[name]}"
        element[0].set("movablelimits", "true")
    _embolden(element)


def _space(element: ElementTree.Element) -> None:
    """Set words such as "min" apart from their neighbours as TeX does: from letters, not from signs."""
    children = list(element)
    for before, child, after in zip([None, *children], children, [*children[1:], None], strict=False):
        word = child[0] if _name(child) in {*_UNDER, *_UNDER.values()} and len(child) else child
        if _name(word) == "mo" and (word.text or "").replace("\u2009", "").isalpha():
            word.set("lspace", "0" if before is None or _name(before) == "mo" else THIN)
            word.set("rspace", "0" if after is None or _opens(after) else THIN)


def _opens(element: ElementTree.Element) -> bool:
    first = element
    while _name(first) == "mrow" and len(first):
        first = first[0]
    return _name(first) == "mo" and first.text in ("(", "[", "{")


def _embolden(element: ElementTree.Element) -> None:
    variant = _BOLD.get(element.get("mathvariant", ""))
    if variant and element.text:
        element.text = "".join(_shifted(letter, variant) for letter in element.text)
        del element.attrib["mathvariant"]


def _shifted(letter: str, variant: dict[str, int]) -> str:
    for first, start in variant.items():
        if letter.isascii() and letter.isalnum() and _kind(letter) == _kind(first):
            return chr(start + ord(letter) - ord(first))
    return letter


def _kind(letter: str) -> tuple[bool, bool]:
    return letter.isdigit(), letter.isupper()
