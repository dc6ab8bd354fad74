"""Several seeds of the utilization benchmark, in one table and one picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import dots, report
from benchmarks.data import Photographs
from benchmarks.machine import caption
from benchmarks.plots import save, titled
from benchmarks.sheets import Sheet, markdown_rows
from benchmarks.sweep.cuts import mean
from benchmarks.sweep.report import words
from benchmarks.training import Recipe
from benchmarks.utilization import Outcome, Watcher, run

Numbers = dict[str, Any]
PICTURE = "seeds.png"


class Column(NamedTuple):
    """A heading, the key of the numbers below it, their format, and a factor to display them."""

    heading: str
    key: str
    form: str
    scale: float = 1.0


CODES_USED = Column("codes used", "codes_used", ".0f")
PERPLEXITY = Column("perplexity", "perplexity", ".0f")
PSNR = Column("PSNR dB", "psnr_db", ".2f")
COLUMNS = (
    CODES_USED,
    Column("used %", "utilization", ".1f", 100),
    PERPLEXITY,
    Column("bits/pixel", "bits_per_pixel", ".3f"),
    PSNR,
    Column("SSIM", "ssim", ".3f"),
)
DRAWN = (PSNR, CODES_USED, PERPLEXITY)


def run_each(
    names: Sequence[str],
    photographs: Photographs,
    folders: Mapping[Recipe, Path],
    *,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> dict[int, Outcome]:
    """Run the benchmark with each recipe, with its stored results in its own folder.

    Returns: the outcome for the seed of each recipe. After Ctrl-C, everything is missing from the later ones.
    """
    outcomes: dict[int, Outcome] = {}
    interrupted = False
    for recipe, folder in folders.items():
        outcome = Outcome([], list(names), True)
        if not interrupted:
            outcome = run(names, recipe, photographs, folder, fresh=fresh, watcher=watcher)
        outcomes[recipe.seed], interrupted = outcome, outcome.interrupted
    return outcomes


def full_record(outcomes: Mapping[int, Outcome], recipe: Recipe, photographs: Photographs) -> dict[str, Any]:
    """Return the JSON: what `report.full_record` contains, with the results of all seeds, each with its seed."""
    outcome = Outcome(
        [result for each in outcomes.values() for result in each.finished],
        [f"{name} (seed {seed})" for seed, each in outcomes.items() for name in each.missing],
        any(each.interrupted for each in outcomes.values()),
    )
    record = report.full_record(outcome, recipe, photographs)
    del record["settings"]["seed"]
    record["settings"]["seeds"] = list(outcomes)
    record["results"] = [
        {**result.numbers, "seed": seed} for seed, each in outcomes.items() for result in each.finished
    ]
    return record


def by_quantizer(record: dict[str, Any]) -> dict[str, list[Numbers]]:
    """Return the numbers of each quantizer, one per seed."""
    found: dict[str, list[Numbers]] = {}
    for numbers in record["results"]:
        found.setdefault(numbers["quantizer"], []).append(numbers)
    return found


def sheet(record: dict[str, Any]) -> Sheet:
    """Return the table: the mean over the seeds, with the lowest and the highest in parentheses."""
    seeds = ", ".join(map(str, record["settings"]["seeds"]))
    rows = []
    for name, numbers in by_quantizer(record).items():
        cells = [words(mean(numbers, column.key, column.scale), column.form) for column in COLUMNS]
        rows.append([name, str(len(numbers)), _codes(numbers[0]), *cells])
    return Sheet(f"Mean (lowest to highest) of seeds {seeds}", ["quantizer", "seeds", "codes", *_headings()], rows)


def markdown(record: dict[str, Any], picture: str = PICTURE) -> str:
    """Return the table in Markdown, the picture, and a line on what was run and where."""
    lines = [*markdown_rows(sheet(record)), "", f"![PSNR and codes used, by quantizer and seed]({picture})", ""]
    lines += [
        "Each cell is the mean over the seeds, with the lowest and the highest in parentheses. " + on(record)
    ]
    if record["missing"]:
        lines += ["", f"Not finished: {', '.join(record['missing'])}."]
    return "\n".join(lines) + "\n"


def on(record: dict[str, Any]) -> str:
    """Describe the training, the data and the machine."""
    settings, data = record["settings"], record["data"]
    seeds = ", ".join(map(str, settings["seeds"]))
    return (
        f"{settings['steps']} steps of {settings['batch_size']} crops of {len(data['train'])} photographs "
        f"({data['source']}), seeds {seeds}; held out: {report.file_names(data['held_out'])}. "
        f"{caption(record)}."
    )


def draw(folder: Path, record: dict[str, Any]) -> Path:
    """Draw the picture, with the quantizers in order of their mean PSNR, and return its path."""
    save(folder / PICTURE, figure(record))
    return folder / PICTURE


def figure(record: dict[str, Any]) -> Figure:
    """Return a panel each for PSNR, codes used and perplexity: a row per quantizer, a dot per seed."""
    found = by_quantizer(record)
    names = sorted(found, key=lambda name: _order(found[name]), reverse=True)
    made = titled("Quantizers by reconstruction quality", on(record), (11, 0.24 * len(names) + 1.8))
    for axes, column in zip(made.subplots(1, len(DRAWN), sharey=True), DRAWN, strict=True):
        dots.panel(axes, [_values(found[name], column) for name in names], column.heading)
        if column is not PSNR:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=0)
    dots.name_rows(made.axes[0], names)
    return made


def _order(numbers: Sequence[Numbers]) -> float:
    found = mean(numbers, PSNR.key)
    return -math.inf if found is None else found.mean


def _values(numbers: Sequence[Numbers], column: Column) -> list[float]:
    return [column.scale * each[column.key] for each in numbers if each[column.key] is not None]


def _codes(numbers: Numbers) -> str:
    if not numbers["codebook_size"]:
        return "-"
    several = f"{numbers['codebooks']}×" if numbers["codebooks"] > 1 else ""
    return f"{several}{numbers['codebook_size']}"


def _headings() -> list[str]:
    return [column.heading for column in COLUMNS]
