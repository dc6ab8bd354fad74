"""The tables on the terminal and in Markdown, and the JSON with all measurements."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import machine
from benchmarks.kernels import plots, pruning_plot, real_report
from benchmarks.kernels.bars import judge
from benchmarks.kernels.cells import milliseconds, percent, times_as
from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.requirements import Bar
from benchmarks.kernels.results import Results, Row, Wrong
from benchmarks.kernels.run import Settings
from benchmarks.machine import caption
from benchmarks.sheets import NOTHING, Sheet, markdown_rows

BARE = "bare GEMM"
DISTRIBUTIONS = ("faiss-cpu", "flash-kmeans", "scikit-learn", "triton", "vector-quantize-pytorch")
EXPLANATION = (
    "Each cell: median milliseconds; its ratio to this library's (≈: the middle halves of the runs overlap); peak "
    "MiB beyond inputs and outputs; the first column ends with the limit for this library. Bare GEMM: the "
    "matrix product of all vectors with all codes and nothing else, in tiles."
)
WRONG_EXPLANATION = (
    "Percent of 4096 vectors whose index is not the nearest code's: its distance in float64 exceeds the smallest "
    "by more than a relative 10⁻¹²."
)

EXPLANATIONS = {"Wrong indices": WRONG_EXPLANATION, "Requirements": "", **real_report.EXPLANATIONS}
PICTURES = {
    plots.NAME: "Time against N, K and D",
    pruning_plot.NAME: "Time against the number of codes, on latents",
}


def sheets(results: Results) -> list[Sheet]:
    """Return the tables that have measurements."""
    made = []
    if results.search:
        made.append(time_sheet("Nearest code", results.search, results.exactness))
    if results.step:
        made.append(time_sheet("Training step: forward, loss, statistics, backward", results.step, []))
    if results.exactness:
        made.append(wrong_sheet(results.exactness))
    if results.real:
        made.append(real_report.search_sheet(results.real))
    if results.real_step:
        made.append(time_sheet(real_report.STEP, results.real_step, []))
    if results.load:
        made.append(real_report.load_sheet(results.load))
    return made


def time_sheet(title: str, rows: Sequence[Row], wrong: Sequence[Wrong]) -> Sheet:
    """Return a table with a column per rival and a row per shape.

    The faster bare product gets one column. The last row contains the share of wrong indices.
    """
    bare = {rival.name for rival in GEMMS}
    names = [rival.name for rival in rows[0].rivals if rival.name not in bare]
    floors = list(rows[0].floors)
    gemm = [BARE] if any(row.gemm for row in rows) else []
    body = [
        [
            _shape_cell(row),
            *(_cell(row, name) for name in names),
            *([_cell(row, row.gemm)] if gemm else []),
            *(milliseconds(row.floors[kind]) for kind in floors),
        ]
        for row in rows
    ]
    if wrong:
        worst = [max((each.shares[name] for each in wrong if name in each.shares), default=None) for name in names]
        body.append(["wrong\nat worst", *map(percent, worst), *[NOTHING] * (len(gemm) + len(floors))])
    return Sheet(title, ["N\nK\nD", *names, *gemm, *(f"floor, {kind}" for kind in floors)], body)


def wrong_sheet(wrong: Sequence[Wrong]) -> Sheet:
    names = list(dict.fromkeys(name for each in wrong for name in (*each.shares, *each.failures)))
    body = [
        [f"{each.data}\nK {each.k}, D {each.d}", *(percent(each.shares.get(name)) for name in names)]
        for each in wrong
    ]
    return Sheet("Wrong indices", ["data", *names], body)


def bar_sheet(bars: Sequence[Bar]) -> Sheet:
    """Return a table of the requirements."""
    verdicts = {True: "met", False: "not met", None: NOTHING}
    body = [[bar.requirement, verdicts[bar.met], _bar_number(bar), bar.where] for bar in bars]
    return Sheet("Requirements", ["requirement", "", "worst", "where"], body)


def notes(results: Results) -> list[str]:
    """Return sentences on what was left out or failed."""
    failures = {
        f"{name} at {where}: {reason}."
        for where, failed in (
            *((row.where, row.failures) for row in results.rows()),
            *((each.data, each.failures) for each in results.exactness),
        )
        for name, reason in failed.items()
    }
    interrupted = ["Interrupted: the remaining measurements are missing."] if results.interrupted else []
    return [*dict.fromkeys(results.left_out), *sorted(failures), *interrupted]


def markdown(results: Results, bars: Sequence[Bar], record: dict[str, Any], pictures: Sequence[str]) -> str:
    """Return all tables and pictures, with a line on what was run and where."""
    libraries = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines: list[str] = []
    for sheet in (*sheets(results), bar_sheet(bars)):
        explanation = EXPLANATIONS.get(sheet.title, EXPLANATION)
        lines += [
            f"**{sheet.title}**",
            "",
            *markdown_rows(sheet),
            "",
            *([explanation, ""] if explanation else []),
        ]
    lines += [f"![{PICTURES[name]}]({name})\n" for name in pictures]
    lines += [f"{sentence}\n" for sentence in notes(results)]
    lines.append(f"{caption(record)}. Implementation: `{results.implementation}`. Versions: {libraries}.")
    return "\n".join(lines) + "\n"


def full_record(settings: Settings, results: Results, bars: Sequence[Bar]) -> dict[str, Any]:
    """Return the JSON: settings, machine and versions, and every number."""
    where = machine.record(settings.device)
    where["versions"] |= installed_versions()
    return {
        "benchmark": "kernels",
        "settings": {
            "device": str(settings.device),
            "shapes": [asdict(shape) for shape in settings.shapes],
            "seed": settings.seed,
            "parts": settings.parts,
        },
        **where,
        "implementation": results.implementation,
        "search": [row.record() for row in results.search],
        "training_step": [row.record() for row in results.step],
        "wrong_indices": [asdict(each) for each in results.exactness],
        "growth": [asdict(point) for point in results.growth],
        "real_data": [row.record() for row in results.real],
        "real_training_step": [row.record() for row in results.real_step],
        "pruning": [asdict(point) for point in results.pruning],
        "load": [asdict(each) | {"factor": each.factor} for each in results.load],
        "bars": [asdict(bar) for bar in bars],
        "left_out": results.left_out,
        "interrupted": results.interrupted,
    }


def judged(settings: Settings, results: Results) -> list[Bar]:
    return judge(
        results.search,
        results.step,
        results.exactness,
        settings.device.type,
        real=results.real,
        load=results.load,
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of the compared libraries that are installed."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _shape_cell(row: Row) -> str:
    """Return N, K and D, and the limit of this library's memory if that was measured."""
    limit = [f"≤ {row.allowance / 2**20:.0f} MiB"] if row.memory else []
    return "\n".join([*(str(size) for size in (row.shape.n, row.shape.k, row.shape.d)), *limit])


def _cell(row: Row, name: str) -> str:
    if name not in row.times:
        return NOTHING
    lines = [milliseconds(row.times[name].median)]
    if ratio := row.ratios().get(name):
        lines.append("≈" if ratio["noise"] else times_as(ratio["ratio"]))
    if name in row.memory:
        memory = row.memory[name]
        lines.append(NOTHING if memory is None else f"{memory / 2**20:.0f} MiB")
    return "\n".join(lines)


def _bar_number(bar: Bar) -> str:
    return NOTHING if bar.number is None else f"{bar.number:.3g} {bar.unit}".replace(" x", "x")
