"""The study's record, and the tables that come from it."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import machine
from benchmarks.crops import held_out_tiles
from benchmarks.data import Photographs
from benchmarks.machine import caption
from benchmarks.report import file_names
from benchmarks.sheets import NOTHING, Sheet, markdown_rows
from benchmarks.stored_results import StoredResult
from benchmarks.study import compare, curves
from benchmarks.study.effects import Comparison, Effect, Setting, Table
from benchmarks.study.measures import GAP, STEPS_TO_VQ, Measure
from benchmarks.study.run import Results
from benchmarks.sweep.cuts import mean_of
from benchmarks.sweep.grid import Point
from benchmarks.sweep.report import words
from benchmarks.training import Recipe

EXPLANATION = (
    "Each cell is the mean over the seeds, with the lowest and the highest in parentheses. A comparison holds "
    "if it holds in every seed: two trainings with one seed have the same initial encoder and decoder weights "
    "and the same batches. K is the requested size; FSQ takes the nearest product of levels. Codes used, "
    "unless stated otherwise, and PSNR are for held-out photographs, counted from zero. Perplexity is two to the "
    "power of the entropy of the codes' frequencies in bits. Quantization error is the mean squared difference "
    "between latents and quantized vectors. Steps is the first step at which the mean training error of the last "
    f"{curves.WINDOW} steps is at most the final error of plain VQ with the same seed."
)


def full_record(
    effects: Sequence[Effect],
    points: Sequence[Point],
    results: Results,
    photographs: Photographs,
    base: Recipe,
    workers: int,
) -> dict[str, Any]:
    """Return settings, data, machine and versions, every training's numbers, curves, and the results of the
    comparisons.
    """
    record = {
        "benchmark": "study",
        "settings": {
            "effects": [effect.key for effect in effects],
            "seeds": sorted({point.recipe.seed for point in points}),
            "steps": base.steps,
            "batch_size": base.batch_size,
            "learning_rate": base.learning_rate,
            "device": base.device,
            "workers": workers,
        },
        "data": {**photographs.describe(), "held_out_tiles": len(held_out_tiles(photographs.held_out))},
        **machine.record(torch.device(base.device)),
        "points": [numbers(point, result, results) for point, result in results.finished.items()],
        "curves": [
            curve(point, result) for point, result in results.finished.items() if _has_curve(effects, point)
        ],
        "failed": results.failed,
        "missing": [str(point) for point in results.missing(points)],
        "interrupted": results.interrupted,
    }
    record["comparisons"] = [
        {"effect": effect.key, **compared(record, comparison)}
        for effect in effects
        for comparison in effect.comparisons
    ]
    return record


def numbers(point: Point, result: StoredResult, results: Results) -> dict[str, Any]:
    """Return a training's numbers, including those derived from plain VQ's at the same K, D and seed."""
    plain = results.finished.get(Point("vq", point.recipe))
    recipe = point.recipe
    reached = {} if plain is None else {STEPS_TO_VQ.key: curves.steps_to(result.train_mse, plain.train_mse)}
    return {
        **result.numbers,
        **reached,
        "quantizer": point.name,
        "asked_codebook_size": recipe.codebook_size,
        "dim": recipe.dim,
        "seed": recipe.seed,
        GAP.key: result.numbers["psnr_db_window"] - result.numbers["psnr_db_crops"],
    }


def curve(point: Point, result: StoredResult) -> dict[str, Any]:
    """Return the training's error curve, on the [0, 1] scale."""
    setting = asdict(_setting(point))
    return {**setting, "seed": point.recipe.seed, **curves.thinned(result.train_mse)}


def compared(record: dict[str, Any], comparison: Comparison) -> dict[str, Any]:
    """Return a comparison's differences, one per seed, and the verdict."""
    found = compare.differences(record, comparison)
    return {
        "sentence": comparison.sentence,
        "measure": comparison.measure.heading,
        "differences": found,
        "verdict": compare.verdict(found, len(record["settings"]["seeds"])),
    }


def comparison_sheet(record: dict[str, Any], effect: Effect) -> Sheet:
    """Return a table of the comparisons: the sentence, the measured values, and whether it holds in every seed."""
    rows = []
    for each in effect.comparisons:
        greater = _cell(record, each.greater, each.measure)
        lesser = _cell(record, each.lesser, each.lesser_measure or each.measure)
        rows.append([each.sentence, f"{greater} against {lesser}", compared(record, each)["verdict"]])
    return Sheet(f"({effect.key}) {effect.title}", ["", "measured", "holds"], rows)


def table_sheet(record: dict[str, Any], table: Table) -> Sheet:
    """Return a table of the record's means."""
    rows = [
        [name, *(_cell(record, c.setting(name), c.measure) for c in table.columns)] for name in table.quantizers
    ]
    return Sheet(table.title, ["quantizer", *(column.heading for column in table.columns)], rows)


def sheets(record: dict[str, Any], effect: Effect) -> list[Sheet]:
    """Return the comparisons, then the tables."""
    return [comparison_sheet(record, effect), *(table_sheet(record, table) for table in effect.tables)]


def markdown(record: dict[str, Any], effects: Sequence[Effect], pictures: dict[str, list[str]]) -> str:
    """Return each effect with its claim, comparisons, tables and pictures, then explanations and the machine."""
    lines = []
    for effect in effects:
        first, *tables = sheets(record, effect)
        lines += [f"## {first.title}", "", effect.claim, "", *markdown_rows(first), ""]
        for sheet in tables:
            lines += [f"**{sheet.title}**", "", *markdown_rows(sheet), ""]
        lines += [f"![{effect.title}]({name})\n" for name in pictures.get(effect.key, [])]
    return "\n".join([*lines, EXPLANATION, "", *(f"{each}\n" for each in notes(record)), on(record)]) + "\n"


def notes(record: dict[str, Any]) -> list[str]:
    """Return sentences on missing results."""
    said = list(record["failed"])
    if record["missing"]:
        said.append(f"Not finished: {len(record['missing'])} trainings. Run the same command again to resume.")
    return said


def on(record: dict[str, Any]) -> str:
    """Describe the training, the data and the machine."""
    settings, data = record["settings"], record["data"]
    seeds = ", ".join(map(str, settings["seeds"]))
    return (
        f"{settings['steps']} steps of {settings['batch_size']} crops of {len(data['train'])} photographs "
        f"({data['source']}), Adam at {settings['learning_rate']:g}, seeds {seeds}; held out: "
        f"{file_names(data['held_out'])}, {data['held_out_tiles']} tiles. {caption(record)}."
    )


def _cell(record: dict[str, Any], setting: Setting, measure: Measure) -> str:
    found = list(compare.values(record, setting, measure).values())
    finite = mean_of([number for number in found if math.isfinite(number)])
    if finite is None:
        return "never" if found and measure.may_be_never else NOTHING
    never = sum(map(math.isinf, found))
    return words(finite, measure.form) + (f", never in {never} of {len(found)} seeds" if never else "")


def _setting(point: Point) -> Setting:
    return Setting(point.name, point.recipe.codebook_size, point.recipe.dim)


def _has_curve(effects: Sequence[Effect], point: Point) -> bool:
    timed = (table for effect in effects for table in effect.tables if table.timed)
    return any(_setting(point) in table.settings() for table in timed)
