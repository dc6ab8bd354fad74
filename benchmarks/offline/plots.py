"""Pictures of inertia against time, with a panel for each cell."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.offline.cells import KMEANS, PRODUCT, RESIDUAL, STREAM, Cell
from benchmarks.offline.contenders import BY_NAME, Contender
from benchmarks.offline.summary import Line, called
from benchmarks.plots import GREY, PALETTE, PLAIN_NUMBERS, ruled, save

PICTURES = {
    "kmeans-1e5.png": "Inertia against time: k-means of 10⁵ vectors",
    "kmeans-1e6.png": "Inertia against time: k-means of 10⁶ vectors",
    "kmeans.png": "Inertia against time: k-means of other numbers of vectors",
    "composed.png": "Inertia against time: residual and product codes",
    "stream.png": "Inertia against time: k-means from a file",
}
COLOURS = {"quantizers": PALETTE[0], "faiss": PALETTE[3], "sklearn": PALETTE[2]}
MARKERS = ("o", "D", "s", "^")
COLUMNS, WIDTH, HEIGHT = 3, 3.5, 2.7  # panels per row; inches of a panel
ROOM = 1.15  # of the vertical axis above the worst end of a contender
LEAST_TOP = 1.0  # percent


def write(folder: Path, found: Sequence[Line], caption: str) -> list[str]:
    """Draw the pictures that have measurements in `folder`; `caption` names the machine. Returns their names."""
    groups: dict[str, list[Cell]] = {}
    for cell in dict.fromkeys(line.cell for line in found):
        if called(found, cell):
            groups.setdefault(_picture(cell), []).append(cell)
    for name in PICTURES:
        if name in groups:
            save(folder / name, draw(found, groups[name], f"{PICTURES[name]}\n{caption}"))
    return [name for name in PICTURES if name in groups]


def draw(found: Sequence[Line], cells: Sequence[Cell], title: str) -> Figure:
    """Draw a panel for each cell, up to three in a row."""
    rows = -(-len(cells) // COLUMNS)
    columns = -(-len(cells) // rows)
    figure = Figure(figsize=(max(6.5, columns * WIDTH), rows * HEIGHT + 1.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, cell in zip(panels, cells, strict=False):
        _panel(axes, cell, called(found, cell))
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(cells) - columns) : len(cells)]:
        axes.set_xlabel("seconds", fontsize=9)
    for axes in panels[::columns]:
        axes.set_ylabel("above the least inertia (%)", fontsize=9)
    names = [
        name for name in BY_NAME if any(line.contender.name == name for c in cells for line in called(found, c))
    ]
    handles = [Line2D([], [], label=name, **_look(BY_NAME[name])) for name in names]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=9
    )
    figure.suptitle(title, fontsize=9, color=GREY)
    return figure


def _panel(axes: Axes, cell: Cell, lines: Sequence[Line]) -> None:
    """Draw the end of every contender, and the way there where it is known, in percent above the least inertia."""
    least = min(inertia for line in lines for _, inertia in line.points)
    worst = max(100 * (line.inertia / least - 1) for line in lines)
    top = max(LEAST_TOP, ROOM * worst)
    shown: list[float] = []
    for line in lines:
        points = [(seconds, 100 * (inertia / least - 1)) for seconds, inertia in line.points]
        look = _look(line.contender)
        axes.plot(*zip(*points, strict=True), **look | {"marker": "", "linewidth": 1.2})
        axes.plot(*points[-1], **look)
        shown += [seconds for seconds, above in points if above <= top]
    axes.set(xscale="log", ylim=(-0.05 * top, top))
    _round_limits(axes, shown)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axes.xaxis.set_minor_formatter(NullFormatter())
    codes = f"{cell.codebooks} × {cell.k}" if cell.codebooks > 1 else str(cell.k)
    kind = f"{cell.kind}, " if cell.kind in (RESIDUAL, PRODUCT) else ""
    axes.set_title(f"{kind}{cell.source}, D {cell.d}, K {codes}", fontsize=9, color=GREY)
    axes.tick_params(labelsize=8)
    ruled(axes)


def _round_limits(axes: Axes, seconds: Sequence[float]) -> None:
    low, high = min(seconds), max(seconds)
    spread = max(math.log10(high / low), 0.5)
    axes.set_xlim(low * 10 ** (-0.08 * spread), high * 10 ** (0.08 * spread))


def _look(contender: Contender) -> dict[str, Any]:
    """Return a colour for each library and a marker for each of its contenders of a kind."""
    same = [
        each.name
        for each in BY_NAME.values()
        if (each.package, each.kind, each.from_seeds) == (contender.package, contender.kind, False)
    ]
    return {
        "color": COLOURS[contender.package],
        "marker": MARKERS[same.index(contender.name)],
        "markersize": 6,
        "linestyle": "-" if contender.ours else "",
    }


def _picture(cell: Cell) -> str:
    if cell.kind == KMEANS:
        return {10**5: "kmeans-1e5.png", 10**6: "kmeans-1e6.png"}.get(cell.n, "kmeans.png")
    return "stream.png" if cell.kind == STREAM else "composed.png"
