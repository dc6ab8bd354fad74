"""A diagnosis as a figure: codes among vectors, how often they are used, and the levels of grids."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.diagnosis.measures import Drawn, Measures

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure  # not pyplot: no display, no global state
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
except ImportError as error:
    raise ImportError("Diagnosis.plot needs matplotlib: pip install 'quantizers-torch[cli]'") from error

GREY, PALE = "#666666", "#c8c8c8"
VECTOR, USED, DEAD = "#b8cfe0", "#0072B2", "#D55E00"
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
MOST_VECTORS = 2000
MOST_CODES = 4096


def draw(measures: Sequence[Measures], max_rows: int) -> Figure:
    """See `Diagnosis.plot`."""
    shown = [each for each in measures if each.drawn is not None][:max_rows]
    if not shown:
        raise ValueError("there is nothing to draw: no vector chose a code of a codebook or a grid")
    columns = 3 if any(each.levels for each in shown) else 2
    figure = Figure(figsize=(3.9 * columns, 3.3 * len(shown)), layout="constrained")
    for axes, each in zip(figure.subplots(len(shown), columns, squeeze=False), shown, strict=True):
        assert each.drawn is not None
        _scatter(axes[0], each, each.drawn)
        _ranks(axes[1], each.drawn)
        if columns == 3:
            _levels(axes[2], each.levels)
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
            one.tick_params(labelsize=8)
    return figure


def _scatter(axes: Axes, measures: Measures, drawn: Drawn) -> None:
    """Vectors and codes along the principal axes of the vectors."""
    origin, directions, shares = principal_axes(drawn.vectors)
    axes.scatter(
        *_along(drawn.vectors[:MOST_VECTORS], origin, directions), s=5, color=VECTOR, linewidths=0, label="vectors"
    )
    if drawn.codes is not None:
        used = _used(drawn)
        in_use = "codes in this sample" if measures.levels else "codes in use"
        for chosen, color, label in ((~used, DEAD, "dead codes"), (used, USED, in_use)):
            codes = drawn.codes[chosen]
            if len(codes):
                axes.scatter(
                    *_along(codes[:MOST_CODES], origin, directions),
                    s=14,
                    color=color,
                    linewidths=0.4,
                    edgecolors="white",
                    label=f"{len(codes):,} {label if len(codes) > 1 else label.replace('codes', 'code')}",
                )
    axes.set_xlabel(f"first principal axis ({shares[0]:.0%} of the variance)", fontsize=8.5)
    axes.set_ylabel(f"second ({shares[1]:.0%})", fontsize=8.5)
    axes.set_title(measures.label, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=7.5, loc="best")


def _used(drawn: Drawn) -> Tensor:
    assert drawn.codes is not None
    if drawn.counts is None or len(drawn.counts) != len(drawn.codes):  # the values of a grid that occur
        return torch.ones(len(drawn.codes), dtype=torch.bool)
    return drawn.counts > 0


def _ranks(axes: Axes, drawn: Drawn) -> None:
    """How often each code is used, from the most to the least frequent."""
    if drawn.counts is None or not int(drawn.counts.sum()):
        axes.set_axis_off()
        return
    frequent = drawn.counts[drawn.counts > 0].sort(descending=True).values
    shares = (100 * frequent / frequent.sum()).tolist()
    size = len(drawn.counts)
    axes.plot(range(1, len(shares) + 1), shares, color=USED, marker="o", markersize=2.5, linewidth=1.2)
    axes.axhline(100 / size, color=GREY, linestyle=(0, (2, 2)), linewidth=1)
    axes.annotate("all equal", (1, 100 / size), (2, 3), textcoords="offset points", fontsize=7.5, color=GREY)
    if len(shares) < size:
        axes.axvspan(len(shares) + 0.5, size, color=DEAD, alpha=0.12, linewidth=0)
    axes.set(xscale="log", yscale="log", xlim=(0.9, max(size, 2)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("rank of the code", fontsize=8.5)
    axes.set_ylabel("share of the vectors (%)", fontsize=8.5)
    axes.set_title(f"{len(shares):,} of {size:,} codes in use", fontsize=10, loc="left")


def _levels(axes: Axes, levels: Sequence[Sequence[int]] | None) -> None:
    """The share of the vectors on each level of each channel, as a column of cells."""
    if not levels or not sum(levels[0]):
        axes.set_axis_off()
        return
    height = max(map(len, levels))
    cells = torch.full((height, len(levels)), float("nan"))
    for channel, counts in enumerate(levels):
        cells[: len(counts), channel] = 100 * torch.tensor(counts, dtype=torch.float64).float() / sum(counts)
    image = axes.imshow(cells.numpy(), origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=100)
    if len(levels) * height <= 100:
        for channel, counts in enumerate(levels):
            for level in range(len(counts)):
                value = float(cells[level, channel])
                axes.text(
                    channel, level, f"{value:.0f}", ha="center", va="center", fontsize=7.5,
                    color="white" if value > 55 else "black",
                )  # fmt: skip
    axes.figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7.5)
    axes.set_xticks(range(len(levels)) if len(levels) <= 20 else range(0, len(levels), 5))
    axes.set_yticks(range(height) if height <= 20 else range(0, height, 5))
    axes.set_xlabel("channel", fontsize=8.5)
    axes.set_ylabel("level", fontsize=8.5)
    axes.set_title("share of the vectors on each level (%)", fontsize=10, loc="left")


def principal_axes(vectors: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The mean [D], the two principal directions [D, 2] and their shares of the variance, of vectors [n, D]."""
    x = vectors.double()
    mean = x.mean(0)
    if x.shape[1] == 1:
        return mean, torch.tensor([[1.0, 0.0]], dtype=torch.float64), (1.0, 0.0)
    values, directions = torch.linalg.eigh((x - mean).T @ (x - mean))
    axes = directions[:, [-1, -2]]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the sign is arbitrary
    shares = (values[[-1, -2]].clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-300)).tolist()
    return mean, axes, (shares[0], shares[1])


def _along(vectors: Tensor, origin: Tensor, directions: Tensor) -> tuple[list[float], list[float]]:
    points = (vectors.double() - origin) @ directions
    return points[:, 0].tolist(), points[:, 1].tolist()
