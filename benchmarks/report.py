"""The table on the terminal and in Markdown, and the JSON with everything."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table

from benchmarks import machine
from benchmarks.data import Photographs
from benchmarks.parts import Part
from benchmarks.sheets import NOTHING
from benchmarks.training import USAGE_WINDOW, Recipe
from benchmarks.utilization import Outcome
from benchmarks.variants import label


@dataclass(frozen=True)
class Column:
    """A heading, broken so that the table fits 80 columns, and how a part's numbers fill its cells."""

    heading: str
    cell: Callable[[dict[str, Any]], str]


def number(key: str, form: str, scale: float = 1.0) -> Callable[[dict[str, Any]], str]:
    """A cell of numbers[key] · scale, or a dash where there is no such number."""

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


def table(finished: list[Part]) -> Table:
    """One row a quantizer. On a narrow terminal the names give way, not the numbers."""
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for i, column in enumerate(COLUMNS):
        shown.add_column(column.heading, justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for part in finished:
        shown.add_row(*(label(column.cell(part.numbers)) for column in COLUMNS))
    return shown


def markdown(outcome: Outcome, record: dict[str, Any]) -> str:
    """The same table, with a line on what was run and where."""
    lines = [
        "| " + " | ".join(column.heading.replace("/\n", "/").replace("\n", " ") for column in COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    for part in outcome.finished:
        lines.append("| " + " | ".join(column.cell(part.numbers) for column in COLUMNS) + " |")
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
    """The JSON: settings, data, where and with what, one result a quantizer, and what is missing."""
    return {
        "benchmark": "utilization",
        "settings": {**asdict(recipe), "usage_window_steps": USAGE_WINDOW},
        "data": photographs.describe(),
        **machine.record(torch.device(recipe.device)),
        "results": [part.numbers for part in outcome.finished],
        "missing": outcome.missing,
        "interrupted": outcome.interrupted,
    }


def file_names(files: list[dict[str, Any]], most: int = 5) -> str:
    """The first names, and how many more there are."""
    names = [file["name"] for file in files[:most]]
    return ", ".join(names) + (f" and {len(files) - most} more" if len(files) > most else "")
