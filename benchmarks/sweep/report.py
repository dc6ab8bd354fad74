"""The JSON of a sweep. The tables on the terminal and in Markdown come from it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import machine
from benchmarks.autoencoder import DOWNSAMPLING
from benchmarks.crops import held_out_tiles
from benchmarks.data import TILE, Photographs
from benchmarks.machine import caption
from benchmarks.report import file_names
from benchmarks.sheets import NOTHING, Sheet, markdown_rows
from benchmarks.sweep.cuts import Mean, best, cut, mean
from benchmarks.sweep.grid import AXES, Grid
from benchmarks.sweep.run import Results

SYMBOLS = {"codebook_size": "K", "dim": "D", "learning_rate": "learning rate"}
VALUES = {"codebook_size": "codebook_sizes", "dim": "dims", "learning_rate": "learning_rates"}

# Heading, key, format, scale. The first two are also shown on the terminal.
MEASURES: list[tuple[str, str, str, float]] = [
    ("PSNR in dB", "psnr_db", ".2f", 1),
    ("codes used in %", "utilization", ".1f", 100),
    ("bits per code", "entropy_bits", ".2f", 1),
    ("perplexity", "perplexity", ".0f", 1),
]
STEP_TIME = ("milliseconds of a training step", "step_ms", ".0f", 1.0)
EXPLANATION = (
    "K is the requested size; FSQ takes the nearest product of levels, and shares refer to that actual size. "
    "Codes are counted from zero on held-out photographs: codes used as a percentage of all codes, the entropy "
    "of their frequencies in bits per code, and perplexity, two to the power of the entropy. PSNR is computed "
    "from the mean squared error over all tiles."
)


def full_record(grid: Grid, results: Results, photographs: Photographs) -> dict[str, Any]:
    """Return settings, data, machine and versions, every point with all its numbers, and what is missing and
    why."""
    return {
        "benchmark": "sweep",
        "settings": {
            "quantizers": list(grid.names),
            **{key: list(values) for key, values in asdict(grid.axes).items()},
            "centre": dict(zip(AXES, grid.axes.centre, strict=True)),
            "crossed": grid.crossed,
            "steps": grid.base.steps,
            "batch_size": grid.base.batch_size,
            "device": grid.base.device,
        },
        "data": {**photographs.describe(), "held_out_vectors": _held_out_vectors(photographs)},
        **machine.record(torch.device(grid.base.device)),
        "points": results.points,
        "left_out": [str(point) for point in grid.left_out()],
        "failed": results.failed,
        "missing": [str(point) for point in results.missing],
        "interrupted": results.interrupted,
    }


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return tables of every measure against every axis with more than one value, and step times against K."""
    made = []
    for axis in swept(record):
        measures = [*MEASURES, STEP_TIME] if axis == "codebook_size" else MEASURES
        made += [_sheet(record, axis, *measure) for measure in measures]
    return [*made, best_sheet(record)] if record["settings"]["crossed"] else made


def short_sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return the tables for the terminal."""
    return [_sheet(record, axis, *measure) for axis in swept(record) for measure in MEASURES[:2]]


def swept(record: dict[str, Any]) -> list[str]:
    """Return the axes along which something varies; K if nothing does."""
    return [axis for axis in AXES if len(record["settings"][VALUES[axis]]) > 1] or ["codebook_size"]


def elsewhere(record: dict[str, Any], axis: str) -> str:
    """Return the values of the other axes, such as `D 32, learning rate 0.003`."""
    centre = record["settings"]["centre"]
    return ", ".join(f"{SYMBOLS[other]} {plain(centre[other])}" for other in AXES if other != axis)


def plain(value: float) -> str:
    """Format a whole number with all digits, and 0.003 as it is."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def notes(record: dict[str, Any]) -> list[str]:
    """Return sentences on what the tables lack."""
    said = []
    if record["left_out"]:
        said.append(
            f"Left out because their steps are slow: {'; '.join(record['left_out'])}. "
            "Use --codebook-sizes or --full to train them."
        )
    if record["failed"]:
        said.append(f"Did not fit in memory: {'; '.join(record['failed'])}.")
    if record["missing"]:
        said.append(f"Not finished: {len(record['missing'])} points. Run the same command again to resume.")
    return said


def markdown(record: dict[str, Any], pictures: Sequence[str]) -> str:
    """Return all tables and pictures, with a line on what was run and where."""
    lines = []
    for sheet in sheets(record):
        lines += [f"**{sheet.title}**", "", *markdown_rows(sheet), ""]
    lines += [f"![{name.removesuffix('.png')}]({name})\n" for name in pictures]
    lines += [EXPLANATION, "", *(f"{sentence}\n" for sentence in notes(record))]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, f"{on(record)} Versions: {versions}."]) + "\n"


def on(record: dict[str, Any]) -> str:
    """Describe the training, the data and the machine."""
    settings, data = record["settings"], record["data"]
    seeds = settings["seeds"]
    over = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over {len(seeds)} seeds (lowest to highest)"
    return (
        f"{settings['steps']} steps of {settings['batch_size']} crops of {len(data['train'])} photographs "
        f"({data['source']}), {over}; held out: {file_names(data['held_out'])}. {caption(record)}."
    )


def _held_out_vectors(photographs: Photographs) -> int:
    return len(held_out_tiles(photographs.held_out)) * (TILE // DOWNSAMPLING) ** 2


def _sheet(record: dict[str, Any], axis: str, heading: str, key: str, form: str, scale: float) -> Sheet:
    values = record["settings"][VALUES[axis]]

    def cell(name: str) -> Callable[[float], str]:
        points = cut(record, name, axis)
        return lambda value: words(mean(points.get(value, []), key, scale), form)

    rows = [[name, *map(cell(name), values)] for name in record["settings"]["quantizers"]]
    title = f"{heading[0].upper()}{heading[1:]} against {SYMBOLS[axis]}, at {elsewhere(record, axis)}"
    return Sheet(title, ["quantizer", *map(plain, values)], rows)


def best_sheet(record: dict[str, Any]) -> Sheet:
    """Return what each method reaches at each K with its best D and learning rate."""

    def cell(name: str, size: int) -> str:
        found = best(record, name, size, "psnr_db")
        if found is None:
            return NOTHING
        value, point = found
        return f"{words(value, '.2f')}\nD {point['dim']}, {point['learning_rate']:g}"

    sizes = record["settings"]["codebook_sizes"]
    rows = [[name, *(cell(name, size) for size in sizes)] for name in record["settings"]["quantizers"]]
    return Sheet(
        "Best PSNR in dB at each K, with its D and learning rate", ["quantizer", *map(plain, sizes)], rows
    )


def words(value: Mean | None, form: str) -> str:
    if value is None:
        return NOTHING
    lowest, middle, highest = (format(each, form) for each in (value.lowest, value.mean, value.highest))
    return middle if lowest == highest else f"{middle} ({lowest} to {highest})"
