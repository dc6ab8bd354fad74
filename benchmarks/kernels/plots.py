"""The picture of how a search's time grows with the numbers of vectors, codes and channels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.kernels import gemm, growth, rivals
from benchmarks.kernels.results import Point
from benchmarks.plots import GREY, PALETTE, PLAIN_NUMBERS, ruled, save

NAME = "growth.png"
LABELS = {"n": "N, vectors", "k": "K, codes", "d": "D, channels"}
LOOKS: dict[str, dict[str, Any]] = {
    rivals.OURS: {"color": PALETTE[0], "linewidth": 2.4, "zorder": 3},
    rivals.CDIST: {"color": PALETTE[3]},
    rivals.FAISS: {"color": PALETTE[1]},
    rivals.FLASH: {"color": PALETTE[2]},
    gemm.MM: {"color": GREY, "linestyle": "--"},
    gemm.ONEDNN: {"color": GREY, "linestyle": ":"},
}


def write(folder: Path, points: Sequence[Point], caption: str) -> Path:
    """Draw growth.png in `folder`; `caption` names the machine."""
    save(folder / NAME, draw(points, caption))
    return folder / NAME


def draw(points: Sequence[Point], caption: str) -> Figure:
    """Draw three panels of time against one size each; a panel's title gives the other two."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(growth.SIZES), sharey=True)
    for axes, axis in zip(panels, growth.SIZES, strict=True):
        _panel(axes, axis, points)
    panels[0].set_ylabel("time of one search (ms)")
    panels[0].yaxis.set_major_formatter(PLAIN_NUMBERS)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(caption, fontsize=9, color=GREY)
    return figure


def _panel(axes: Axes, axis: str, points: Sequence[Point]) -> None:
    measured = {point.shape: point.times for point in points}
    shapes = [shape for shape in growth.line(axis) if shape in measured]
    for name, look in LOOKS.items():
        drawn = [shape for shape in shapes if name in measured[shape]]
        if drawn:
            sizes = [getattr(shape, axis) for shape in drawn]
            times = [measured[shape][name].median for shape in drawn]
            axes.plot(sizes, times, marker="o", markersize=3.5, label=name, **look)
    others = ", ".join(f"{key.upper()} {getattr(growth.BASE, key)}" for key in growth.SIZES if key != axis)
    axes.set(xscale="log", yscale="log", xlabel=LABELS[axis])
    axes.set_title(others, fontsize=9, color=GREY)
    axes.xaxis.set_major_locator(FixedLocator(growth.SIZES[axis]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    ruled(axes)
