"""The table on the terminal and in Markdown, and the JSON with all numbers."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table

from benchmarks import machine
from benchmarks.data import Photographs
from benchmarks.sheets import NOTHING
from benchmarks.stored_results import StoredResult
from benchmarks.training import USAGE_WINDOW, Recipe
from benchmarks.utilization import Outcome
from benchmarks.variants import label


@dataclass(frozen=True)
class Column:
    """A heading, with line breaks so that the table fits 80 columns, and a function that formats a result's
    cell."""

    heading: str
    cell: Callable[[dict[str, Any]], str]


def number(key: str, form: str, scale: float = 1.0) -> Callable[[dict[str, Any]], str]:
    """Return a cell that formats numbers[key] · scale, or a dash if the number is missing."""

    def cell(numbers: dict[str, Any]) -> str:
        value = numbers[key]
        return NOTHING if value is None or not math.isfinite(value) else format(value * scale, form)

    return cell


def codes_used(numbers: dict[str, Any]) -> str:
    if numbers["codes_used"] is None:
        return NOTHING
    several = f"{numbers['codebooks']}×" if numbers["codebooks"] > 1 else ""
    return f"{numbers['codes_used']}/{several}{numbers['codebook_size']}"


COLUMNS = (
    Column("quantizer", lambda numbers: numbers["quantizer"]),
    Column("codes\nused", codes_used),
    Column("used\n%", number("utilization", ".1f", 100)),
    Column("PPL", number("perplexity", ".0f")),
    Column("bits/\ncode", number("entropy_bits", ".2f")),
    Column("bits/\npixel", number("bits_per_pixel", ".3f")),
    Column("MSE\n10⁻³", number("mse", ".2f", 1000)),
    Column("PSNR\ndB", number("psnr_db", ".2f")),
    Column("SSIM", number("ssim", ".3f")),
    Column("step\nms", number("step_ms", ".0f")),
    Column("quant\n%", number("quantizer_share", ".0f", 100)),
    Column("peak\nMiB", number("peak_memory_bytes", ".0f", 2**-20)),
)


def table(finished: list[StoredResult]) -> Table:
    """Return a table with one row per quantizer. On a narrow terminal the names wrap, not the numbers."""
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for i, column in enumerate(COLUMNS):
        shown.add_column(column.heading, justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for result in finished:
        shown.add_row(*(label(column.cell(result.numbers)) for column in COLUMNS))
    return shown


def markdown(outcome: Outcome, record: dict[str, Any]) -> str:
    """Return the same table in Markdown, with a line on what was run and where."""
    lines = [
        "| " + " | ".join(column.heading.replace("/\n", "/").replace("\n", " ") for column in COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    for result in outcome.finished:
        lines.append("| " + " | ".join(column.cell(result.numbers) for column in COLUMNS) + " |")
    settings, data = record["settings"], record["data"]
    lines += [
        "",
        f"Held out: {file_names(data['held_out'])}. Training: {len(data['train'])} photographs "
        f"({data['source']}), {settings['steps']} steps of {settings['batch_size']} crops, "
        f"seed {settings['seed']}. PPL: perplexity. MSE on the [0, 1] scale, PSNR of that mean. "
        "quant %: the quantizer's share of a training step. peak: tensor memory during a training step.",
        "",
        f"{machine.caption(record)}.",
    ]
    if outcome.missing:
        lines += ["", f"Not finished: {', '.join(outcome.missing)}."]
    return "\n".join(lines) + "\n"


def full_record(outcome: Outcome, recipe: Recipe, photographs: Photographs) -> dict[str, Any]:
    """Return the JSON: settings, data, machine and versions, one result per quantizer, and what is missing."""
    return {
        "benchmark": "utilization",
        "settings": {**asdict(recipe), "usage_window_steps": USAGE_WINDOW},
        "data": photographs.describe(),
        **machine.record(torch.device(recipe.device)),
        "results": [result.numbers for result in outcome.finished],
        "missing": outcome.missing,
        "interrupted": outcome.interrupted,
    }


def file_names(files: list[dict[str, Any]], most: int = 5) -> str:
    """List the first names, and how many more there are."""
    names = [file["name"] for file in files[:most]]
    return ", ".join(names) + (f" and {len(files) - most} more" if len(files) > most else "")
