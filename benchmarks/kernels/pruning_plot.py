"""The picture of how the time of a search among learned codes grows with their number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, TRAINING
from benchmarks.kernels.results import Point
from benchmarks.kernels.rivals import FAISS
from benchmarks.plots import GREY, PALETTE, PLAIN_NUMBERS, ruled, save

NAME = "pruning.png"
PRODUCT = "bare matrix product"
LOOKS: dict[str, dict[str, Any]] = {
    PRODUCT: {"color": GREY, "linestyle": "--"},
    FAISS: {"color": PALETTE[1]},
    ALL_CODES: {"color": PALETTE[4]},
    TRAINING: {"color": PALETTE[0], "linestyle": (0, (4, 1.2)), "linewidth": 2.4},
    EVALUATION: {"color": PALETTE[0], "linewidth": 2.4},
}


def write(folder: Path, points: Sequence[Point], caption: str) -> Path:
    """Draw pruning.png in `folder`; `caption` names the machine."""
    save(folder / NAME, draw(points, caption))
    return folder / NAME


def draw(points: Sequence[Point], caption: str) -> Figure:
    """Draw one line for each way to search, from few codes to many."""
    ordered = sorted(points, key=lambda point: point.shape.k)
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for name, look in LOOKS.items():
        line = [(point.shape.k, time) for point in ordered if (time := _time(point, name)) is not None]
        if line:
            axes.plot(*zip(*line, strict=True), marker="o", markersize=3.5, label=name, **look)
    shape = ordered[0].shape
    axes.set(xscale="log", yscale="log", xlabel="K, codes", ylabel="time of one search (ms)")
    axes.set_title(f"{shape.n} latents of VQ, D {shape.d}", fontsize=10, color=GREY)
    axes.xaxis.set_major_locator(FixedLocator([point.shape.k for point in ordered]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
    ruled(axes)
    figure.legend(loc="outside lower center", ncols=len(LOOKS), frameon=False, fontsize=9)
    figure.suptitle(caption, fontsize=9, color=GREY)
    return figure


def _time(point: Point, name: str) -> float | None:
    """Return a rival's median, for the bare product that of the faster one; None if it was not measured."""
    names = [rival.name for rival in GEMMS] if name == PRODUCT else [name]
    return min((point.times[each].median for each in names if each in point.times), default=None)
