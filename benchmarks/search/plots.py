"""Distortion and recall against the rate, a column for each kind of vectors."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from benchmarks.machine import caption
from benchmarks.plots import GREY, PALETTE, ruled, save, titled
from benchmarks.search.coders import FAISS, OURS
from benchmarks.search.report import grouped, sizes
from benchmarks.seeds import Column
from benchmarks.sweep.cuts import mean

NAME = "rates.png"
PANELS = (Column("error (% of the variance)", "error", "", 100), Column("recall@10 (%)", "recall_10", "", 100))
COLORS = {
    "product": PALETTE[1],
    "rotated product": PALETTE[2],
    "residual, greedy": PALETTE[4],
    "residual, beam": PALETTE[0],
    "QINCo": PALETTE[3],
}
LINES = {OURS: {"linestyle": "-", "marker": "o"}, FAISS: {"linestyle": (0, (2, 2)), "marker": "x"}}


def write(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Draw the picture, if there is a row of compressed search. Returns its path in a list."""
    if not record["search"]:
        return []
    save(folder / NAME, rates(record))
    return [folder / NAME]


def rates(record: dict[str, Any]) -> Figure:
    """Draw a panel for each kind and measure, with a line for each coder."""
    kinds = list(dict.fromkeys(row["kind"] for row in record["search"]))
    source = f"{sizes(record)}\n{caption(record)}."
    figure = titled("Codes of equal length: distortion and recall", source, (max(8, 3.1 * len(kinds) + 2.4), 6.4))
    panels = figure.subplots(len(PANELS), len(kinds), squeeze=False, sharex=True)
    for column, kind in enumerate(kinds):
        rows = [row for row in record["search"] if row["kind"] == kind]
        panels[0, column].set_title(kind, fontsize=10)
        panels[-1, column].set_xlabel("bits per vector")
        for axes, measure in zip(panels[:, column], PANELS, strict=True):
            _panel(axes, rows, measure)
    for axes, measure in zip(panels[:, 0], PANELS, strict=True):
        axes.set_ylabel(measure.heading)
    methods = [method for method in COLORS if any(row["method"] == method for row in record["search"])]
    keys = [Line2D([], [], color=COLORS[method], label=method) for method in methods]
    libraries = [Line2D([], [], color=GREY, label=library, **look) for library, look in LINES.items()]
    figure.legend(handles=[*keys, *libraries], loc="outside right center", frameon=False, fontsize=9)
    return figure


def _panel(axes: Axes, rows: list[dict[str, Any]], measure: Column) -> None:
    """Draw the mean over the seeds against the rate, and a band from the lowest seed to the highest."""
    for (library, method), same in grouped(rows, ("library", "method")):
        found = {bits: mean(each, measure.key, measure.scale) for (bits,), each in grouped(same, ("bits",))}
        drawn = {bits: value for bits, value in sorted(found.items()) if value is not None}
        values = list(drawn.values())
        axes.plot(
            list(drawn), [each.mean for each in values], color=COLORS[method], markersize=5, **LINES[library]
        )
        low, high = [each.lowest for each in values], [each.highest for each in values]
        axes.fill_between(list(drawn), low, high, color=COLORS[method], alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({row["bits"] for row in rows})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    ruled(axes)
