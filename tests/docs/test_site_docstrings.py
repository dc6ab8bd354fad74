"""Docstrings become Markdown, and a public name without one, or without an entry, is an error."""

import inspect

import pytest

import quantizers
from docs._hooks import llms, public_names
from docs._hooks.docstrings import to_markdown
from docs._hooks.public_names import PublicName

DOCSTRING = """First line. Raises: ValueError for nothing.

Two terms:

    k = argmin_j ‖z − e_j‖   (1)
    value e_k

What it does:
- one
- two

Example:
    >>> 1 + 1
    2

Args:
    dim: channels of x. codebook_size: K ≥ 1;
        or none. See x: y.
    weight, other_weight: see above.

Raises: ValueError for a size below 1, and
    TypeError for text.
"""

MARKDOWN = """First line.

**Raises:** ValueError for nothing.

Two terms:

```text
k = argmin_j ‖z − e_j‖   (1)
value e_k
```

What it does:

- one
- two

**Example:**

```pycon
>>> 1 + 1
2
```

**Arguments:**

- `dim`: channels of x.
- `codebook_size`: K ≥ 1; or none. See x: y.
- `weight`, `other_weight`: see above.

**Raises:** ValueError for a size below 1, and
TypeError for text."""


def test_a_docstring_as_markdown() -> None:
    assert to_markdown(inspect.cleandoc(DOCSTRING)) == MARKDOWN


@pytest.mark.parametrize("name", sorted(quantizers.__all__))
def test_nothing_of_a_docstring_is_lost(name: str) -> None:
    text = inspect.getdoc(getattr(quantizers, name)) or ""
    words = to_markdown(text).replace("Arguments:", "Args:")
    marks = str.maketrans("", "", "`*-\n ")
    assert words.replace("pycon", "").replace("```text", "").replace("```python", "").translate(
        marks
    ) == text.translate(marks)


def undocumented() -> None: ...


def documented() -> None:
    """It has one."""


def test_a_name_without_docstring_or_entry_is_named() -> None:
    names = [PublicName("a.f", undocumented, ("a.f", "b.f")), PublicName("a.g", documented, ("a.g", "b.g"))]
    assert public_names.problems(names, {"b.f"}) == ["a.f has no docstring", "a.g has no entry in the reference"]
    assert public_names.problems(names[1:], {"b.g"}) == []


def test_a_second_name_of_the_same_thing_needs_no_entry() -> None:
    names = [PublicName("a.g", documented, ("a.g",)), PublicName("b.g", documented, ("b.g",))]
    assert public_names.problems(names, {"b.g"}) == []


def test_modules_that_list_their_names_are_found() -> None:
    found = set(public_names.with_list())
    assert {"quantizers.adapters", "quantizers.bitstream", "quantizers.training.schedules"} <= found
    assert not found & set(public_names.WITHOUT_LIST)


def test_words_in_code_are_mentions() -> None:
    assert public_names.mentions(["`a.b` c\n\n```python\nd(e)\n```\n\n    f"]) == {
        "a",
        "b",
        "python",
        "d",
        "e",
        "f",
    }


def test_a_page_for_language_models_has_its_docstrings() -> None:
    text = llms.described("# A\n\n::: quantizers.levels_for\n    options:\n      members: []\n\nEnd.\n")
    assert "levels_for(codebook_size: int)" in text
    assert (inspect.getdoc(quantizers.levels_for) or "?") in text
    assert text.endswith("End.\n")
    assert "options:" not in text


@pytest.mark.parametrize(
    ("markdown", "sentence"),
    [
        ("# T\n\nOne [link](a.md) here. Two.\n", "One link here."),
        ("# T\n\n```python\nx\n```\n\n![a](b)\n\n*caption*\n\nText, e.g. this.\n", "Text, e.g. this."),
        ("# T\n", ""),
        ("# T\n\n    pip install it\n\nThen this.\n", "Then this."),
    ],
)
def test_the_first_sentence_of_a_page(markdown: str, sentence: str) -> None:
    assert llms.first_sentence(markdown) == sentence


def test_a_section_may_continue_without_indentation() -> None:
    text = "Source: Tian et al. 2024\n(arXiv 2404.02905).\n\nNext."
    assert to_markdown(text) == "**Source:** Tian et al. 2024\n(arXiv 2404.02905).\n\nNext."
