"""The rows of `make bench` that belong to a method, over several seeds."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.sweep.cuts import mean_of
from benchmarks.sweep.report import words
from docs._hooks.places import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "utilization-cpu" / "seeds.json"
PAGE = "../results/utilization.md"

Numbers = dict[str, Any]


class Column(NamedTuple):
    """A heading, the key of its numbers, and their format."""

    heading: str
    key: str
    form: str


COLUMNS = (
    Column("codes used", "codes_used", ",.0f"),
    Column("perplexity", "perplexity", ",.0f"),
    Column("bits/pixel", "bits_per_pixel", ".3f"),
    Column("PSNR, dB", "psnr_db", ".2f"),
)


@functools.cache
def record() -> dict[str, Any]:
    """The committed results."""
    return dict(json.loads(RESULTS.read_text()))


def table(name: str) -> str:
    """The rows of a method and of its variants as a Markdown table, or a sentence if it was not measured."""
    found = dict(_of(name, record()["results"]))
    if not found:
        return f"`make bench` has no row for `{name}`. The methods that it measured are in [the results]({PAGE})."
    headings = ["setting", "codes", *(column.heading for column in COLUMNS)]
    rows = [f"| {' | '.join(headings)} |", f"|---{'|---:' * (len(headings) - 1)}|"]
    rows += [f"| {' | '.join(_cells(setting, numbers))} |" for setting, numbers in found.items()]
    settings = record()["settings"]
    note = (
        f"An autoencoder trained for {settings['steps']:,} steps on photographs, measured on held-out ones: the "
        f"mean over {len(settings['seeds'])} seeds, with the lowest and the highest in parentheses, or a single "
        f"seed. [All methods]({PAGE})."
    )
    return "\n".join([*rows, "", note])


def _of(name: str, results: Sequence[Numbers]) -> Iterator[tuple[str, list[Numbers]]]:
    names = dict.fromkeys(numbers["quantizer"] for numbers in results)
    for setting in sorted((each for each in names if each.split(":")[0] == name), key=lambda each: each != name):
        yield setting, [numbers for numbers in results if numbers["quantizer"] == setting]


def _cells(setting: str, numbers: Sequence[Numbers]) -> list[str]:
    name, *options = setting.split(":")
    codebooks, size = numbers[0]["codebooks"], numbers[0]["codebook_size"]
    codes = "" if not size else f"{size:,}" if codebooks == 1 else f"{codebooks} × {size:,}"
    values = [over_seeds([each[column.key] for each in numbers], column.form) for column in COLUMNS]
    return [", ".join(f"`{each}`" for each in options) or f"`{name}`", codes, *values]


def over_seeds(values: Sequence[float | None], form: str) -> str:
    """The mean of the values, with their range in parentheses where it shows; empty where they have no meaning."""
    mean = mean_of([value for value in values if value is not None])
    return words(mean, form) if mean else ""
