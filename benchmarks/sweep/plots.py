"""Pictures from a sweep's record. A band reaches from the lowest seed to the highest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from benchmarks.plots import GREY, PLAIN_NUMBERS, appearance, ruled, save, titled
from benchmarks.sweep.cuts import Mean, cut, mean
from benchmarks.sweep.report import VALUES, elsewhere, on, plain
from benchmarks.variants import label

LABELS = {
    "codebook_size": "K, codes in the codebook",
    "dim": "D, latent channels",
    "learning_rate": "learning rate",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
SHARE = "codes used (%)"
PSNR = "PSNR (dB)"


def write_all(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Draw the pictures that the record's points allow. Returns the paths."""
    figures = {"psnr_bits.png": psnr_bits(record), "dims_rates.png": dims_rates(record)}
    if any(point["utilization"] is not None for point in record["points"]):
        figures["utilization.png"] = utilization(record)
    for name, figure in figures.items():
        save(folder / name, figure)
    return [folder / name for name in sorted(figures)]


def utilization(record: dict[str, Any]) -> Figure:
    """Draw the codes used and the perplexity, as shares of the codebook, against its size."""
    where = elsewhere(record, "codebook_size")
    figure = titled(f"Use of the codebook on held-out photographs, at {where}", on(record), (10, 4.6))
    left, right = figure.subplots(1, 2)
    record = {**record, "points": [_with_share(point) for point in record["points"]]}
    _lines(left, record, "codebook_size", "utilization", 100)
    _lines(right, record, "codebook_size", "perplexity_share", 100)
    left.set(ylabel=SHARE, ylim=(0, 103))
    right.set(ylabel="perplexity (% of K)", yscale="log")
    right.yaxis.set_major_formatter(PLAIN_NUMBERS)
    most = [line for axes in (left, right) for line in _ceiling(axes, record)]
    _legend(figure, record, most[:1])
    return figure


def psnr_bits(record: dict[str, Any]) -> Figure:
    """Draw PSNR against bits per pixel: a line per method, a marker per codebook size."""
    where = elsewhere(record, "codebook_size")
    figure = titled(f"Quality against rate on held-out photographs, at {where}", on(record), (8.6, 5))
    axes = figure.subplots()
    sizes = record["settings"]["codebook_sizes"]
    marks = {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(sizes)}
    for name in record["settings"]["quantizers"]:
        _rate_line(axes, record, name, marks)
    axes.set(xlabel="bits per pixel, by the entropy of the codes", ylabel=PSNR)
    ruled(axes)
    key = [Line2D([], [], marker=m, color=GREY, linestyle="none", label=plain(size)) for size, m in marks.items()]
    _legend(figure, record, [Line2D([], [], linestyle="none", label="K, codes"), *key])
    return figure


def dims_rates(record: dict[str, Any]) -> Figure:
    """Draw codes used and PSNR against latent channels and learning rate."""
    figure = titled("Latent channels and learning rate, on held-out photographs", on(record), (10, 7.2))
    panels = figure.subplots(2, 2, sharey="row")
    for column, axis in zip(panels.T, ("dim", "learning_rate"), strict=True):
        _lines(column[0], record, axis, "utilization", 100)
        _lines(column[1], record, axis, "psnr_db", 1)
        column[0].set_title(f"at {elsewhere(record, axis)}", fontsize=9, color=GREY)
        column[0].set_xlabel("")
    panels[0, 0].set_ylim(bottom=0)
    panels[0, 0].set_ylabel(SHARE)
    panels[1, 0].set_ylabel(PSNR)
    _legend(figure, record)
    return figure


def _rate_line(axes: Axes, record: dict[str, Any], name: str, marks: dict[int, str]) -> None:
    """Draw a method's points by K, or a horizontal line for a method without codes, which has no rate."""
    along = cut(record, name, "codebook_size")
    found = {size: (mean(points, "bits_per_pixel"), mean(points, "psnr_db")) for size, points in along.items()}
    drawn = {size: (bits.mean, psnr.mean) for size, (bits, psnr) in found.items() if bits and psnr}
    look = appearance(name)
    axes.plot(*zip(*drawn.values(), strict=True) if drawn else ([], []), **look, linewidth=1.4)
    for size, (bits, psnr) in drawn.items():
        axes.plot(bits, psnr, marker=marks[size], color=look["color"], markersize=6, linestyle="none")
    if not drawn:
        for _, level in found.values():
            axes.axhline(level.mean if level else float("nan"), **look, linewidth=1.2)


def _lines(axes: Axes, record: dict[str, Any], axis: str, key: str, scale: float) -> None:
    """Draw a line through each method's means, with a marker for each value."""
    for name in record["settings"]["quantizers"]:
        means = {value: mean(points, key, scale) for value, points in cut(record, name, axis).items()}
        drawn: dict[float, Mean] = {value: found for value, found in means.items() if found is not None}
        look = appearance(name)
        axes.plot(list(drawn), [each.mean for each in drawn.values()], marker="o", markersize=4, **look)
        lows, highs = ([getattr(each, end) for each in drawn.values()] for end in ("lowest", "highest"))
        if lows != highs:
            axes.fill_between(list(drawn), lows, highs, color=look["color"], alpha=0.12, linewidth=0)
    values = record["settings"][VALUES[axis]]
    axes.set(xscale="log", xlabel=LABELS[axis])
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FixedFormatter([plain(value) for value in values]))
    axes.xaxis.set_minor_locator(NullLocator())
    ruled(axes)


def _ceiling(axes: Axes, record: dict[str, Any]) -> list[Line2D]:
    """Draw vectors / K where there are more codes than held-out vectors: not all of the codes can occur."""
    vectors = record["data"]["held_out_vectors"]
    largest = max(record["settings"]["codebook_sizes"])
    if largest <= vectors:
        return []
    sizes = np.geomspace(vectors, largest, 50)
    words = f"no more can occur\namong {vectors} vectors"
    return axes.plot(sizes, 100 * vectors / sizes, color=GREY, linestyle=(0, (2, 2)), linewidth=1, label=words)


def _with_share(point: dict[str, Any]) -> dict[str, Any]:
    perplexity = point["perplexity"]
    return {**point, "perplexity_share": None if perplexity is None else perplexity / point["codebook_size"]}


def _legend(figure: Figure, record: dict[str, Any], more: Sequence[Line2D] = ()) -> None:
    """Place the legend beside the panels, where it covers no line."""
    names = record["settings"]["quantizers"]
    handles = [Line2D([], [], **appearance(name), label=label(name)) for name in names]
    figure.legend(handles=[*handles, *more], loc="outside right center", frameon=False, fontsize=9)
