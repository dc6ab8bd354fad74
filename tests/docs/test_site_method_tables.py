"""The tables of the method pages say what the library and the committed results say."""

import re

import pytest

import quantizers
from docs._hooks import benchmark_row, method_pages, options_table, preset_list
from tests.docs.test_readme import registered_by_the_library

NAMES = registered_by_the_library()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_row_with_type_and_default(name: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|$", options_table.table(name), re.M)
    assert [row[0] for row in rows] == list(quantizers.options(name))
    for option, kind, default, _ in rows:
        assert kind, f"{name}: {option} has no type"
        value = quantizers.options(name)[option]
        assert default in ("required", f"`{value!r}`", f'`"{value}"`')


def test_most_options_say_what_they_mean() -> None:
    said = [
        re.findall(r"\| ?(.*?) \|$", line)[-1]
        for name in NAMES
        for line in options_table.table(name).splitlines()[2:]
        if line.startswith("|")
    ]
    assert sum(map(bool, said)) > 0.97 * len(said)


def test_a_method_shows_its_rows_and_those_of_its_variants() -> None:
    rows = benchmark_row.table("vq").splitlines()
    assert rows[2].startswith("| `vq` | 1,024 | ")
    assert any(row.startswith("| `replace=dead` |") for row in rows)
    assert {name for name in NAMES if "no row" in benchmark_row.table(name)} == {"opq", "rotated", "var"}


def test_the_range_over_seeds() -> None:
    assert benchmark_row.over_seeds([1.0, 2.0, 6.0], ".0f") == "3 (1 to 6)"
    assert benchmark_row.over_seeds([2.04, 2.0], ".1f") == "2.0"
    assert benchmark_row.over_seeds([None], ".1f") == ""


def test_every_preset_is_on_a_page_of_its_methods() -> None:
    listed = {name for method in NAMES for name in re.findall(r"^\| \[`(.+?)`\]", preset_list.table(method), re.M)}
    assert listed == set(quantizers.presets.available())
    assert preset_list.table("opq") == "No preset uses it."


def test_a_method_has_its_role_in_a_preset() -> None:
    chain = preset_list.chain(quantizers.presets.get("mimi"))
    assert chain == ("parallel", "residual", "ema_vq")
    assert preset_list.role_of("ema_vq", chain) == "inside `residual`"
    assert preset_list.role_of("residual", chain) == "inside `parallel`, around `ema_vq`"
    assert preset_list.role_of("vq", ("vq",)) == "by itself"
    assert preset_list.role_of("fsq", chain) == ""


def test_comments_of_method_pages_alone_are_filled_in() -> None:
    text = "<!-- options -->\n\n<!-- something else -->\n"
    assert method_pages.filled(text, "methods/index.md") == text
    assert method_pages.filled(text, "methods/fsq.md") == text.replace(
        "<!-- options -->", options_table.table("fsq")
    )
