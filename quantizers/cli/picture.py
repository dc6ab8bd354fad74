"""report.png: one page that shows what a fit found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure  # not pyplot: no display, no global state
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

DPI = 130
GREY, PALE = "#666666", "#e5e5e5"
# Okabe and Ito's colours, which colour-blind people can distinguish, without their yellow (too pale on white).
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
MOST_LINES = 6  # of levels in one panel
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    title: str
    subtitle: str
    counts: Sequence[Numbers]
    """For each level [K], how many vectors have each code."""
    passes: Sequence[Sequence[float]]
    """For each level, the inertia of each pass over all vectors as a share of the variance."""
    sample: Numbers
    """Some embeddings [n, dim]."""
    first: Numbers
    """The first code of each of them, [n]."""
    collisions: Sequence[tuple[str, float]]
    """Shares in [0, 1] with their labels; empty where there is one level."""


def draw(path: Path, page: Page) -> None:
    """Write the page as a PNG file."""
    figure = Figure(figsize=(11, 8.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    figure.suptitle(page.title, fontsize=13, fontweight="bold")
    figure.supxlabel(page.subtitle, fontsize=8.5, color=GREY)
    (usage, errors), (chart, last) = figure.subplots(2, 2)
    _usage(usage, page.counts)
    _passes(errors, page.passes)
    _map(chart, page.sample, page.first)
    if page.collisions:
        _collisions(last, page.collisions)
    else:
        _cluster_sizes(last, page.counts[0])
    for axes in (usage, errors, chart, last):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    figure.savefig(path, dpi=DPI, format="png")


def _usage(axes: Axes, counts: Sequence[Numbers]) -> None:
    """How often each code occurs, from the most to the least frequent. A line ends after the last used code."""
    for level, each in list(enumerate(counts))[:MOST_LINES]:
        frequent = np.sort(each[each > 0])[::-1]
        shares = 100 * frequent / frequent.sum()
        label = f"{_level(level, len(counts))}: {len(frequent)} of {len(each)} codes"
        axes.plot(np.arange(1, len(shares) + 1), shares, color=PALETTE[level], label=label)
    size = max(len(each) for each in counts)
    axes.plot([1, size], [100 / size] * 2, color=GREY, linestyle=(0, (2, 2)), linewidth=1, label="all equal")
    axes.set(xscale="log", yscale="log", xlabel="rank of the code", ylabel="share of the vectors (%)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
    first = f", first {MOST_LINES} levels" if len(counts) > MOST_LINES else ""
    axes.set_title(f"How often each code is used{first}", fontsize=10.5, loc="left")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")


def _passes(axes: Axes, passes: Sequence[Sequence[float]]) -> None:
    """The error after each pass, in one line that goes on from level to level."""
    done = 0
    for level, inertias in list(enumerate(passes))[:MOST_LINES]:
        steps = np.arange(done + 1, done + len(inertias) + 1)
        axes.plot(steps, 100 * np.asarray(inertias), "o-", color=PALETTE[level], markersize=4)
        if len(inertias):
            label = (steps[-1], 100 * inertias[-1])
            axes.annotate(
                f"{100 * inertias[-1]:.3g} %", label, (0, 7), textcoords="offset points", ha="center", fontsize=8.5
            )
        done += len(inertias)
    axes.set(xlabel="pass over all vectors", ylabel="error of the level, share of the variance (%)")
    axes.set_ylim(0, 1.1 * max((100 * each for inertias in passes for each in inertias), default=0) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("Mean squared error while the codes were fitted", fontsize=10.5, loc="left")


def _map(axes: Axes, sample: Numbers, first: Numbers) -> None:
    """The first two principal components of a sample, with one colour for each first code."""
    points, explained = principal_components(sample)
    axes.scatter(points[:, 0], points[:, 1], s=6, color=colours_of(points, first), linewidths=0, rasterized=True)
    axes.set(
        xlabel=f"component 1 ({explained[0]:.0%} of the variance)", ylabel=f"component 2 ({explained[1]:.0%})"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{len(sample):,} embeddings, coloured by their first code", fontsize=10.5, loc="left")


def colours_of(points: Numbers, codes: Numbers) -> Numbers:
    """A colour [n, 3] for each point [n, 2]: its code's. Codes that lie side by side differ in brightness."""
    _, inverse = np.unique(codes, return_inverse=True)
    weights = np.bincount(inverse)
    centres = np.stack([np.bincount(inverse, axis) / weights for axis in points.T], -1)
    spread = np.maximum(points.std(0), 1e-12)
    angles = np.arctan2(*(centres / spread).T) / (2 * np.pi)
    steps = np.arange(len(centres)) * 0.618034 % 1  # of the golden ratio: evenly spread for any number of codes
    hues = np.stack([(angles + 0.1 * steps) % 1, 0.55 + 0.35 * (1 - steps), 0.5 + 0.45 * steps], -1)
    return np.asarray(hsv_to_rgb(hues)[inverse])


def _collisions(axes: Axes, collisions: Sequence[tuple[str, float]]) -> None:
    """How many items share a prefix of their ID with another item; the last bar is what the user gets."""
    labels, shares = zip(*collisions, strict=True)
    colours = [PALE] * (len(shares) - 2) + [PALETTE[3], PALETTE[2]]
    bars = axes.bar(range(len(shares)), 100 * np.asarray(shares), color=colours, width=0.7)
    axes.bar_label(bars, [percent(share) for share in shares], fontsize=9, padding=2)
    axes.set_xticks(range(len(shares)), labels, fontsize=8.5)
    axes.set(ylabel="items that share it with another (%)", ylim=(0, 110))
    axes.set_title("Collisions", fontsize=10.5, loc="left")


def _cluster_sizes(axes: Axes, counts: Numbers) -> None:
    """How many codes have how many vectors."""
    used = counts[counts > 0]
    spread = used.max() > 20 * used.min()
    edges = (np.geomspace if spread else np.linspace)(used.min(), used.max() + 1, 30)
    axes.hist(used, bins=edges.tolist(), color=PALETTE[0])
    mean = counts.sum() / len(counts)
    axes.axvline(mean, color=GREY, linestyle=(0, (2, 2)), linewidth=1)
    axes.set(xlabel=f"vectors of a code (dashed: the mean, {mean:,.0f})", ylabel="codes")
    if spread:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Sizes of the clusters", fontsize=10.5, loc="left")


def percent(share: float) -> str:
    """A share in [0, 1], in percent with three digits."""
    return f"{100 * share:.3g} %"


def principal_components(sample: Numbers) -> tuple[Numbers, Numbers]:
    """The coordinates [n, 2] of vectors along their first two principal components, and the shares of variance."""
    x = torch.from_numpy(np.asarray(sample, dtype=np.float64))
    x = x - x.mean(0)
    if x.shape[1] == 1:
        x = torch.cat([x, torch.zeros_like(x)], -1)
    values, vectors = torch.linalg.eigh(x.T @ x)
    axes = vectors[:, [-1, -2]]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # whose sign is arbitrary
    coordinates = x @ axes
    return coordinates.numpy(), (values[[-1, -2]].clamp(min=0) / values.sum().clamp(min=1e-300)).numpy()


def _level(level: int, levels: int) -> str:
    return f"level {level + 1}" if levels > 1 else "codebook"
