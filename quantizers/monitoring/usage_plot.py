"""The use of codebooks as a picture: now, codebook by codebook, or over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Result = Mapping[str, Tensor]

IN_USE, EVEN, GREY = "#0072B2", "#E69F00", "#666666"
MOST_NAMED = 8
"""The most codebooks that a legend names."""


def plot_usage(val: Result | Sequence[Result], sizes: Sequence[int], ax: Any) -> tuple[Any, Any]:
    """Draw results of `CodebookUsage.compute`. Both measures are shares of the codebook, so they share an axis.

    Args:
        val: one result, or one for each step. sizes: of the codebooks. ax: matplotlib axes, or None for new ones.

    Returns: the new figure, None if `ax` is given, and the axes.

    Raises: ModuleNotFoundError without matplotlib; ValueError for an empty list.
    """
    figure, ax = _axes(ax)
    if isinstance(val, Mapping):
        _bars(ax, _percent(val, sizes), _possible(val))
    elif len(val):
        _lines(ax, [_percent(each, sizes) for each in val])
    else:
        raise ValueError("val is an empty list, expected a result of compute, or a list with at least one")
    ax.set_ylim(0, 105)
    ax.set_ylabel("share of the codebook (%)")
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure, ax


def _axes(ax: Any) -> tuple[Any, Any]:
    if ax is not None:
        return None, ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ModuleNotFoundError("CodebookUsage.plot needs matplotlib: pip install matplotlib") from error
    return pyplot.subplots(layout="constrained")


def _percent(result: Result, sizes: Sequence[int]) -> tuple[list[float], list[float]]:
    """Of each codebook the codes in use, and the perplexity, in percent of its codes."""
    perplexity = result["perplexity"].reshape(-1).tolist()
    used = [100 * share for share in result["utilization"].reshape(-1).tolist()]
    return used, [100 * each / size for each, size in zip(perplexity, sizes, strict=True)]


def _possible(result: Result) -> list[float]:
    return [100 * share for share in result["possible"].reshape(-1).tolist()]


def _bars(ax: Any, shares: tuple[list[float], list[float]], possible: list[float]) -> None:
    """Two bars for each codebook, and a line where so many vectors could bring the first."""
    used, even = shares
    numbers = range(len(used))
    ax.bar([number - 0.2 for number in numbers], used, width=0.38, color=IN_USE, label="codes in use")
    ax.bar([number + 0.2 for number in numbers], even, width=0.38, color=EVEN, label="perplexity")
    ax.hlines(
        possible,
        [number - 0.42 for number in numbers],
        [number + 0.42 for number in numbers],
        colors=GREY,
        linestyles="dashed",
        label="most that so many vectors can use",
    )
    if len(used) <= MOST_NAMED:
        for place, values in ((-0.2, used), (0.2, even)):
            for number, value in enumerate(values):
                ax.annotate(
                    f"{value:.3g}",
                    (number + place, value),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    size="small",
                )
    ax.set_xticks(range(0, len(used), 1 + len(used) // 16))
    ax.set_xlim(-0.7, len(used) - 0.3)
    ax.set_xlabel("codebook")


def _lines(ax: Any, steps: Sequence[tuple[list[float], list[float]]]) -> None:
    """Two lines for each codebook, of which the color tells the codebook if there are several."""
    from matplotlib.ticker import MaxNLocator

    count = len(steps[0][0])
    marker = "o" if len(steps) <= 30 else ""
    for codebook in range(count):
        used, even = ([measures[kind][codebook] for measures in steps] for kind in (0, 1))
        one, other = (IN_USE, EVEN) if count == 1 else (_color(codebook, count),) * 2
        named = f"{codebook}: " if count > 1 else ""
        shown = count <= MOST_NAMED or codebook in (0, count - 1)
        ax.plot(used, color=one, marker=marker, ms=3, label=f"{named}codes in use" if shown else None)
        ax.plot(even, "--", color=other, marker=marker, ms=3, label=f"{named}perplexity" if shown else None)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _color(number: int, count: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    color: tuple[float, ...] = colormaps["viridis"](0.9 * number / max(count - 1, 1))
    return color
