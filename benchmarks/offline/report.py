"""The report in Markdown, and the JSON with all measurements."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import machine
from benchmarks.kernels.report import bar_sheet
from benchmarks.kernels.requirements import Bar
from benchmarks.offline import plots, stored
from benchmarks.offline.bars import judge
from benchmarks.offline.cells import Cell
from benchmarks.offline.contenders import LARGEST_BOUNDS
from benchmarks.offline.run import Results, Settings
from benchmarks.offline.summary import Line, lines, reach, rivals
from benchmarks.offline.tables import EXPLANATIONS, sheets
from benchmarks.sheets import markdown_rows


def notes(results: Results) -> list[str]:
    """Return sentences on what was left out, failed, or was not measured in time."""
    failed = {f"{run.contender} on {run.cell}: {run.error}." for run in results.runs if run.error}
    return [
        *results.left_out,
        *sorted(failed),
        "scikit-contrib's e-means is not compared, since it is not on PyPI.",
        *(["Interrupted: the remaining runs are missing."] if results.interrupted else []),
    ]


def missing(settings: Settings, results: Results) -> list[str]:
    """Return sentences on the runs that cannot be made, or for which there was no time."""
    sentences = []
    for cell in settings.cells:
        fitting = [contender for contender in settings.contenders if contender.fits(cell)]
        excluded = [c.name for c in settings.contenders if c.kind == cell.kind and not c.fits(cell)]
        if excluded:
            limit = LARGEST_BOUNDS // 2**30
            sentences.append(f"{cell}: {', '.join(excluded)} would take more than {limit} GiB for its bounds.")
        waiting = [contender.name for contender in fitting if not results.of(cell, contender.name)]
        if waiting:
            sentences.append(f"{cell}: not measured: {'; '.join(waiting)}.")
    return sentences


def full_record(settings: Settings, results: Results) -> dict[str, Any]:
    """Return the JSON: settings, machine and versions, and every number."""
    found = lines(results.runs)
    where = machine.record(torch.device("cpu"))
    where["versions"] = stored.library_versions()
    where["machine"]["threads"] = settings.threads
    return {
        "benchmark": "offline",
        "settings": {
            "budget_s": settings.budget_s,
            "rounds": settings.rounds,
            "limit_s": settings.limit_s,
            "cells": [asdict(cell) for cell in settings.cells],
            "contenders": [contender.name for contender in settings.contenders],
        },
        **where,
        "cells": [_cell_record(cell, found) for cell in dict.fromkeys(line.cell for line in found)],
        "bars": [asdict(each) for each in judge(found, results.runs)],
        "notes": [*notes(results), *missing(settings, results)],
        "interrupted": results.interrupted,
    }


def markdown(found: Sequence[Line], bars: Sequence[Bar], record: dict[str, Any], pictures: Sequence[str]) -> str:
    """Return all tables and pictures, with a line on what was run and where."""
    out: list[str] = []
    for sheet in (*sheets(found), bar_sheet(bars)):
        explanation = EXPLANATIONS.get(sheet.title)
        out += [f"**{sheet.title}**", "", *markdown_rows(sheet), "", *([explanation, ""] if explanation else [])]
    out += [f"![{plots.PICTURES[name]}]({name})\n" for name in pictures]
    out += [f"{sentence}\n" for sentence in record["notes"]]
    libraries = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    out.append(f"{machine.caption(record)}. Vector instructions: {instructions(found)}. Versions: {libraries}.")
    return "\n".join(out) + "\n"


def instructions(found: Sequence[Line]) -> str:
    """Return what each library says about the vector instructions that ran."""
    told = {line.contender.package: line.instructions for line in found if line.instructions}
    return "; ".join(f"{package} {words}" for package, words in told.items()) or "unknown"


def _cell_record(cell: Cell, found: Sequence[Line]) -> dict[str, Any]:
    own = [line for line in found if line.cell == cell]
    reached = [each for line in rivals(found, cell) if (each := reach(found, line))]
    return {
        **asdict(cell),
        "iterations": cell.iterations,
        "iterations_from_seeds": cell.iterations_from_seeds,
        "contenders": [line.record() for line in own],
        "reached": [
            {"other": each.rival.contender.name, "ours": each.ours, "seconds": each.seconds, "lead": each.lead}
            for each in reached
        ],
    }
