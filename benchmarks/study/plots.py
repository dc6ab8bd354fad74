"""Pictures from the study's record: lines over K or D, dots for single settings, error curves over training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

from benchmarks import dots as dot_rows
from benchmarks.plots import PALETTE, PLAIN_NUMBERS, ruled, save, titled
from benchmarks.study import compare
from benchmarks.study.effects import Effect, Setting, Table, capital
from benchmarks.study.report import on
from benchmarks.sweep.cuts import mean_of
from benchmarks.sweep.plots import MARKERS
from benchmarks.variants import label

COLORS = ("#000000", *PALETTE)  # plain VQ, the first row of each table, is black


def write_all(folder: Path, record: dict[str, Any], effects: Sequence[Effect]) -> dict[str, list[str]]:
    """Draw all pictures that the record allows. Returns the file names by each effect's key."""
    names: dict[str, list[str]] = {}
    for effect in effects:
        for kind, figure in figures(record, effect).items():
            name = f"{effect.key}-{kind}.png"
            save(folder / name, figure)
            names.setdefault(effect.key, []).append(name)
    return names


def figures(record: dict[str, Any], effect: Effect) -> dict[str, Figure]:
    """Return an effect's figures by kind: lines, dots, curves."""
    made = {}
    if along := [table for table in effect.tables if table.axis]:
        made["lines"] = lines(record, effect, along)
    for table in effect.tables:
        if table.timed:
            made["curves"] = curves(record, effect, table.settings())
        elif not table.axis:
            made["dots"] = dots(record, table)
    return made


def lines(record: dict[str, Any], effect: Effect, tables: Sequence[Table]) -> Figure:
    """Draw a panel per table: a line through each quantizer's means, with a band from the lowest to the highest
    seed.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure = titled(effect.title, on(record), (3.6 * columns + 2.4, 3.5 * rows + 0.9))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(tables) :]:
        axes.axis("off")
    names = list(dict.fromkeys(name for table in tables for name in table.quantizers))
    for axes, table in zip(panels.flat, tables, strict=False):
        for name in table.quantizers:
            _line(axes, record, table, name, marked(name, names))
        _panel(axes, table)
    handles = [
        panels.flat[0].plot([], [], **marked(name, names), markersize=4, label=label(name))[0] for name in names
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    return figure


def dots(record: dict[str, Any], table: Table) -> Figure:
    """Draw a panel per column and a row per quantizer: a dot for each seed and a bar at their mean."""
    figure = titled(table.title, on(record), (2.6 * len(table.columns) + 2.4, 0.34 * len(table.quantizers) + 1.6))
    panels = figure.subplots(1, len(table.columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, table.columns, strict=True):
        settings = [column.setting(name) for name in table.quantizers]
        rows = [list(compare.values(record, setting, column.measure).values()) for setting in settings]
        dot_rows.panel(axes, rows, column.heading.replace(", ", ",\n"))
    dot_rows.name_rows(panels[0], table.quantizers)
    _share_range(panels, table)
    return figure


def curves(record: dict[str, Any], effect: Effect, shown: Sequence[Setting]) -> Figure:
    """Draw a panel per K: mean error over the seeds during training, with a band from lowest to highest."""
    sizes = sorted({setting.codebook_size for setting in shown})
    names = list(dict.fromkeys(setting.quantizer for setting in shown))
    figure = titled(effect.title, on(record), (3.6 * len(sizes) + 2.4, 4.2))
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        for name in names:
            _curve(axes, _curves_of(record, name, size), look(name, names))
        axes.set_title(f"K {size}", fontsize=9)
        axes.set(xlabel="training step", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
        axes.yaxis.set_minor_formatter(NullFormatter())
        ruled(axes)
    panels[0].set_ylabel("mean squared error")
    handles = [panels[0].plot([], [], **look(name, names), label=label(name))[0] for name in names]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    return figure


def _share_range(panels: Sequence[Axes], table: Table) -> None:
    """Use one range for all panels if all show the same unit."""
    if len({(column.measure.form, column.measure.scale) for column in table.columns}) > 1:
        return
    lows, highs = zip(*(axes.get_xlim() for axes in panels), strict=True)
    for axes in panels:
        axes.set_xlim(min(lows), max(highs))


def look(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Return colour and dashes by the position among the names."""
    position = names.index(name)
    return {"color": COLORS[position % len(COLORS)], "linestyle": "-" if position < len(COLORS) else "--"}


def marked(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the same style with a marker."""
    return {**look(name, names), "marker": MARKERS[names.index(name) % len(MARKERS)]}


def _line(axes: Axes, record: dict[str, Any], table: Table, name: str, style: dict[str, Any]) -> None:
    drawn = {}
    for column in table.columns:
        found = mean_of(list(compare.values(record, column.setting(name), column.measure).values()))
        if found is not None:
            drawn[int(column.heading)] = found
    axes.plot(list(drawn), [each.mean for each in drawn.values()], **style, markersize=4, linewidth=1.4)
    lows, highs = ([getattr(each, end) for each in drawn.values()] for end in ("lowest", "highest"))
    axes.fill_between(list(drawn), lows, highs, color=style["color"], alpha=0.1, linewidth=0)


def _panel(axes: Axes, table: Table) -> None:
    ticks = [int(column.heading) for column in table.columns]
    measure = table.columns[0].measure
    axes.set_xscale("log")
    axes.set_xlabel({"K": "K, codes", "D": "D, channels"}[str(table.axis)], fontsize=9)
    axes.set_title(capital(measure.heading), fontsize=9)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8)
    if measure.key == "perplexity":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
    if measure.scale == 100:
        axes.set_ylim(0, 103)
    ruled(axes)


def _curve(axes: Axes, found: Sequence[dict[str, Any]], style: dict[str, Any]) -> None:
    if not found:
        return
    stacked = np.array([each["mse"] for each in found])
    steps = found[0]["steps"]
    axes.plot(steps, stacked.mean(0), **style, linewidth=1.4)
    axes.fill_between(steps, stacked.min(0), stacked.max(0), color=style["color"], alpha=0.12, linewidth=0)


def _curves_of(record: dict[str, Any], name: str, size: int) -> list[dict[str, Any]]:
    return [each for each in record["curves"] if (each["quantizer"], each["codebook_size"]) == (name, size)]
