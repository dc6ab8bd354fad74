"""Panels of dots: a row for each quantizer, a dot for each seed, and a bar at their mean."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from benchmarks.plots import PALE, PALETTE

ROW_COLORS = ("#000000", PALETTE[0])  # alternating, so that the eye can follow a row


def panel(axes: Axes, rows: Sequence[Sequence[float]], heading: str) -> None:
    """Draw the values of each row, from the top, under a heading."""
    for row, values in enumerate(rows):
        color = ROW_COLORS[row % 2]
        axes.plot(values, [row] * len(values), "o", color=color, markersize=4, alpha=0.7)
        if values:
            axes.plot([sum(values) / len(values)] * 2, [row - 0.3, row + 0.3], color=color, linewidth=1.6)
    axes.set_title(heading, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="both", color=PALE, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the quantizers' names beside the first panel."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
