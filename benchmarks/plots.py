"""Pictures of the utilization benchmark. Each quantizer has the same colour in all of them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot: no display, no global state
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import quantizers
from benchmarks.files import write_bytes
from benchmarks.stored_results import StoredResult
from benchmarks.training import USAGE_WINDOW
from benchmarks.variants import CORE, base_name, label

DPI = 130
GREY, PALE = "#666666", "#e5e5e5"
# Okabe and Ito's colours, which colour-blind people can distinguish, without their yellow (too pale on white).
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
FIRST = ("ema_vq", "fsq", "residual", "gumbel", "simvq", "vq")  # have solid lines
DASHES = ("-", ":", "-.", (0, (1, 4)), (0, (4, 1, 1, 1, 1, 1)))  # for more quantizers than colours
VARIANT = "--"

PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:g}")  # 0.01, not a power of ten


def write_all(folder: Path, finished: Sequence[StoredResult], originals: np.ndarray) -> list[Path]:
    """Draw all pictures that the results allow and return their paths.

    `originals` are the held-out views, uint8 [V, S, S, 3]. Bars and rank-frequency need a result that has codes.
    """
    figures = {"curves.png": curves(finished), "reconstructions.png": reconstructions(finished, originals)}
    if any(result.has_codes for result in finished):
        figures |= {"bars.png": bars(finished), "rank_frequency.png": rank_frequency(finished)}
    for name, figure in figures.items():
        save(folder / name, figure)
    return [folder / name for name in sorted(figures)]


def save(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG file, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    write_bytes(path, buffer.getvalue())


def bars(finished: Sequence[StoredResult]) -> Figure:
    """Draw utilization and PSNR on held-out images side by side; the model without a quantizer is a dashed
    line."""
    coded = [result for result in finished if result.has_codes]
    lines = max(label(result.name).count("\n") + 1 for result in coded)
    figure = Figure(figsize=(9, 1.4 + max(0.45, 0.19 * lines) * len(coded)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bar_panel(left, coded, [100 * result.numbers["utilization"] for result in coded], "{:.1f} %")
    left.set(xlabel="codes used on held-out images (%)", xlim=(0, 100))
    left.set_yticks(range(len(coded)), [label(result.name) for result in coded], fontsize=9)
    left.invert_yaxis()
    _bar_panel(right, coded, [_number(result, "psnr_db") for result in coded], "{:.2f} dB")
    right.set(xlabel="PSNR on held-out images (dB)")
    for result in finished:
        if not result.has_codes:
            level = _number(result, "psnr_db")
            right.axvline(level, color=GREY, linestyle="--", linewidth=1.2)
            right.set_title(f"dashed: no quantizer, {level:.2f} dB", fontsize=9, color=GREY)
    return figure


def rank_frequency(finished: Sequence[StoredResult]) -> Figure:
    """Draw how often each code occurs, from the most to the least frequent. A line ends after the last used
    code."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    coded = [result for result in finished if result.has_codes]
    for result in coded:
        counts = np.sort(result.counts[result.counts > 0])[::-1]
        ranks, shares = np.arange(1, len(counts) + 1), 100 * counts / counts.sum()
        axes.plot(ranks, shares, **appearance(result.name), label=result.name)
    size = max(result.code_count for result in coded)
    axes.plot([1, size], [100 / size] * 2, color=GREY, linestyle=(0, (2, 2)), linewidth=1, label="all equal")
    axes.set(xscale="log", yscale="log", xlabel="rank of the code", ylabel="share of held-out vectors (%)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN_NUMBERS)
    without_box(axes)
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def curves(finished: Sequence[StoredResult]) -> Figure:
    """Draw the codes used and the mean squared error during training."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    longest = max(len(result.train_mse) for result in finished)
    window = max(1, min(USAGE_WINDOW, longest // 10))
    for result in finished:
        look = appearance(result.name)
        steps = np.arange(1, len(result.train_mse) + 1)
        if result.has_codes:
            left.plot(steps, 100 * result.train_codes_used / result.code_count, **look)
        smooth = np.convolve(result.train_mse, np.full(window, 1 / window), mode="valid")
        right.plot(steps[window - 1 :], smooth, **look, label=result.name)
    left.set(xlabel="training step", ylabel=f"codes used in the last {USAGE_WINDOW} steps (%)", ylim=(0, 103))
    if any(base_name(result.name) == "gumbel" for result in finished):
        left.set_title("gumbel samples its codes while it trains", fontsize=9, color=GREY)
    right.set(xlabel="training step", ylabel=f"mean squared error, mean of {window} steps", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(PLAIN_NUMBERS)
    right.yaxis.set_minor_formatter(NullFormatter())
    for axes in (left, right):
        without_box(axes)
    figure.legend(loc="outside lower center", ncols=min(len(finished), 4), frameon=False, fontsize=9)
    return figure


def reconstructions(finished: Sequence[StoredResult], originals: np.ndarray) -> Figure:
    """Draw the held-out views: the originals, then each quantizer's reconstructions, with its PSNR over all
    tiles."""
    rows = [("original", originals)] + [(_with_psnr(result), result.views) for result in finished]
    # Positions are in inches, so that 160 pixels are shown one to one, with even gaps.
    cell, gap, labels = 160 / DPI, 4 / DPI, 1.35
    width = labels + len(originals) * (cell + gap)
    height = len(rows) * (cell + gap) + gap
    figure = Figure(figsize=(width, height))
    for row, (caption, images) in enumerate(rows):
        bottom = height - (row + 1) * (cell + gap)
        position = {"x": (labels - 0.1) / width, "y": (bottom + cell / 2) / height}
        figure.text(**position, s=caption, ha="right", va="center", fontsize=9)
        for column, image in enumerate(images):
            left = labels + column * (cell + gap)
            axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
            axes.imshow(image)
            axes.axis("off")
    return figure


def appearance(name: str) -> dict[str, Any]:
    """Return a quantizer's colour, the same whichever others are drawn; dashed for a variant, grey without codes.

    FIRST and the core methods come first, so that their colours do not change as others are registered.
    """
    base = base_name(name)
    if base == "none":
        return {"color": GREY, "linestyle": "-"}
    position = list(dict.fromkeys([*FIRST, *map(base_name, CORE), *quantizers.available()])).index(base)
    dashes = DASHES[position // len(PALETTE) % len(DASHES)] if name == base else VARIANT
    return {"color": PALETTE[position % len(PALETTE)], "linestyle": dashes}


def _bar_panel(axes: Axes, coded: Sequence[StoredResult], values: Sequence[float], form: str) -> None:
    """Draw bars, with their values in a column beside the panel, where no line crosses them."""
    colors = [appearance(result.name)["color"] for result in coded]
    axes.barh(range(len(coded)), values, color=colors, height=0.7)
    for row, value in enumerate(values):
        axes.text(1.03, row, form.format(value), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    without_box(axes)
    axes.tick_params(axis="y", length=0)


def without_box(axes: Axes) -> None:
    """Keep only the left and the bottom axis line."""
    axes.spines[["top", "right"]].set_visible(False)


def ruled(axes: Axes) -> None:
    """Remove the box and add pale horizontal lines for reading values."""
    without_box(axes)
    axes.grid(axis="y", color=PALE, linewidth=0.8)


def titled(title: str, source: str, size: tuple[float, float]) -> Figure:
    """Return a figure with a title, and below it a grey line on what was trained and where."""
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(source.replace("; held out", ";\nheld out"), fontsize=7.5, color=GREY)
    return figure


def _number(result: StoredResult, key: str) -> float:
    """Return NaN, which matplotlib leaves out, for a null in the JSON."""
    value = result.numbers[key]
    return float("nan") if value is None else float(value)


def _with_psnr(result: StoredResult) -> str:
    return f"{label(result.name)}\n{_number(result, 'psnr_db'):.2f} dB"
