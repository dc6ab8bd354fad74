"""The pages on migrating: every argument of the other library has a row, and what stands in it exists here.

A section is headed by a class, "## `Class`". "Here:" names our methods, whose options the second cells name. The
first table has the arguments of the constructor, and one behind a line "`forward`:" those of the forward.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import pytest
import vector_quantize_pytorch
from diffusers.models.autoencoders.vae import VectorQuantizer

import quantizers
from tests.docs.pages import code_blocks

FOLDER = Path(__file__).parents[2] / "docs" / "migrating"
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
SPAN = re.compile(r"`([^`]+)`")
ARGUMENTS_OF_FORWARD = ("mask",)
FORWARD = "`forward`:\n"

VQTORCH_BASE = ["dim=1", "norm='none'", "cb_norm='none'", "kmeans_init=False", "code_vector_size=None"]
NOT_INSTALLED = {
    "vqtorch.md": {
        "VectorQuant": [
            *("feature_size", "num_codes", "beta=0.95", "sync_nu=0.0", "affine_lr=0.0", "affine_groups=1"),
            *("replace_freq=0", "inplace_optimizer=None", *VQTORCH_BASE),
        ],
        "GroupVectorQuant": ["feature_size", "num_codes", "groups=1", "share=True"],
        "ResidualVectorQuant": ["feature_size", "num_codes", "groups=1", "share=True"],
    },
    "taming-diffusers.md": {
        "VectorQuantizer2": [
            *("n_e", "e_dim", "beta", "remap=None", "unknown_index='random'", "sane_index_shape=False"),
            "legacy=True",
        ],
        "GumbelQuantize": [
            *("num_hiddens", "embedding_dim", "n_embed", "straight_through=True", "kl_weight=0.0005"),
            *("temp_init=1.0", "use_vqinterface=True", "remap=None", "unknown_index='random'"),
        ],
        "EMAVectorQuantizer": [
            *("n_embed", "embedding_dim", "beta", "decay=0.99", "eps=1e-05", "remap=None"),
            "unknown_index='random'",
        ],
    },
}
"""Arguments with their defaults, as read from vqtorch 0.1.0 (its main branch, 02e60a1, November 2023) and from
taming-transformers (its main branch, 3ba01b2, November 2022)."""


class Section(NamedTuple):
    """The text under a heading that names a class."""

    page: str
    name: str
    text: str

    @property
    def methods(self) -> list[str]:
        """The names of ours whose options the section may use."""
        found = re.search(r"^Here: (.*?)\n\n", self.text, re.M | re.S)
        assert found, f"{self.page}, {self.name}: no line 'Here: ...'"
        return SPAN.findall(found[1])

    @property
    def constructor(self) -> list[list[str]]:
        """The rows of the first table."""
        return rows(self.text.split(FORWARD)[0])

    @property
    def forward(self) -> list[list[str]]:
        """The rows of the table of the forward's arguments."""
        return rows(self.text.partition(FORWARD)[2])


def rows(text: str) -> list[list[str]]:
    """The cells of the first table with the head "argument"."""
    found = re.search(r"^\| argument \|.*\n\|[-| ]+\n((?:\|.*\n)*)", text, re.M)
    lines = found[1].splitlines() if found else []
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def sections(page: str) -> Iterator[Section]:
    parts = re.split(r"^## `(\w+)`.*\n", (FOLDER / page).read_text(), flags=re.M)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        yield Section(page, name, re.split(r"^## ", text, flags=re.M)[0])


SECTIONS = {f"{section.page}:{section.name}": section for page in PAGES for section in sections(page)}


def installed(section: Section) -> type | None:
    if section.page == "vector-quantize-pytorch.md":
        found: type = getattr(vector_quantize_pytorch, section.name)
        return found
    return VectorQuantizer if section.name == "VectorQuantizer" else None


def arguments(function: Callable[..., Any], *without: str) -> list[str]:
    """Arguments as the tables write them, `name` or `name=default`."""
    parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [parameter for parameter in parameters if parameter.kind not in variable]
    return [written(parameter) for parameter in named if parameter.name not in ("self", *without)]


def written(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return parameter.name
    shown = default.__name__ if isinstance(default, FunctionType) else repr(default)
    return f"{parameter.name}={shown}"


def problem_of(span: str, methods: list[str]) -> str | None:
    """What is wrong with a piece of code in the second cell of a row."""
    options = {option for method in methods for option in quantizers.options(method)}
    word = re.match(r"\w+", span)
    if word and re.fullmatch(r"\w+(=.*)?", span):
        if span in quantizers.available() or word[0] in (*options, *ARGUMENTS_OF_FORWARD):
            return None
        return f"{word[0]} is an option of none of {methods}"
    call = re.fullmatch(r"([\w.]+)\((.*)\)", span)
    return unknown_call(call[1], call[2]) if call else f"{span} is neither an option nor a call"


def unknown_call(path: str, given: str) -> str | None:
    for place in (quantizers, quantizers.regularizers, quantizers.schedules):
        found: Any = place
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            named = re.findall(r"(\w+)=", given)
            missing = [name for name in named if name not in inspect.signature(found).parameters]
            return f"{path} has no argument {missing}" if missing else None
    return f"there is no {path}"


@pytest.mark.parametrize("key", SECTIONS)
def test_every_argument_has_a_row(key: str) -> None:
    section = SECTIONS[key]
    original = installed(section)
    if original is None:
        expected, expected_forward = NOT_INSTALLED[section.page][section.name], None
    else:
        expected, expected_forward = arguments(original), arguments(original.forward, "x", "z")
    assert [row[0] for row in section.constructor] == [f"`{argument}`" for argument in expected]
    if expected_forward is not None and section.forward:
        assert [row[0] for row in section.forward] == [f"`{argument}`" for argument in expected_forward]


@pytest.mark.parametrize("key", SECTIONS)
def test_what_stands_in_the_rows_exists_here(key: str) -> None:
    section = SECTIONS[key]
    for argument, here, *_ in (*section.constructor, *section.forward):
        assert here, f"{key}: {argument} has an empty cell"
        problems = [problem_of(span, section.methods) for span in SPAN.findall(here)]
        assert [problem for problem in problems if problem] == [], f"{key}: {argument}"


def test_every_class_of_the_package_has_a_section() -> None:
    classes = {name for name, value in vars(vector_quantize_pytorch).items() if inspect.isclass(value)}
    assert {section.name for section in sections("vector-quantize-pytorch.md")} == classes - {"Sequential"}
    text = (FOLDER / "vector-quantize-pytorch.md").read_text()
    assert f"vector-quantize-pytorch) {version('vector-quantize-pytorch')}" in text
    assert "| `Sequential` |" in text


@pytest.mark.parametrize("page", sorted(NOT_INSTALLED))
def test_every_class_that_is_not_installed_has_a_section(page: str) -> None:
    assert set(NOT_INSTALLED[page]) <= {section.name for section in sections(page)}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_compares_theirs_with_ours(page: str) -> None:
    """By assertions; tests/docs/test_readme.py runs the blocks."""
    for block in code_blocks((FOLDER / page).read_text()):
        assert "assert " in block, block


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ("commitment_weight", None),
        ("commitment_weight=1.0", None),
        ("fsq", None),
        ("mask", None),
        ("Quantizer.freeze()", None),
        ("Entropy(temperature=...)", None),
        ("levels", "an option of none"),
        ("Quantizer.melt()", "there is no"),
        ("Entropy(heat=...)", "no argument"),
        ("x + 1", "neither"),
    ],
)
def test_a_cell_that_names_what_is_not_there_is_seen(span: str, problem: str | None) -> None:
    found = problem_of(span, ["vq"])
    assert found is None if problem is None else problem in str(found)


def test_a_table_without_one_of_the_arguments_is_seen() -> None:
    section = SECTIONS["vector-quantize-pytorch.md:FSQ"]
    shorter = section._replace(text=section.text.replace("| `scale=None` |", "| `scala=None` |"))
    assert [row[0] for row in shorter.constructor] != [f"`{a}`" for a in arguments(vector_quantize_pytorch.FSQ)]
