"""A scene as a picture."""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from docs._pictures.planes import HEIGHT, WIDTH
from docs._pictures.scene import Scene
from docs._pictures.tints import tinted

BLUE, ORANGE, GREEN, PURPLE = "#00518f", "#d55e00", "#00704d", "#a0468f"
INK, GREY = "#1a1a1a", "#8f8f8f"
DECODER_SCALE = 0.3
"""The length of a decoder's gradient of norm 1 in a picture."""
LONGEST_OWN, LONGEST_MOVE = 0.6, 0.5
"""The lengths to which the longest arrow of the quantizer's own loss and the longest step of a code are scaled."""
VISIBLE = 0.012
"""Arrows shorter than this are not drawn."""
COLOURS = 64


class Entry(NamedTuple):
    """An entry of the legend at a place of its own: a marker, an arrow, or both."""

    x: float
    y: float
    text: str
    colour: str
    marker: str = ""
    arrow: bool = False


def draw(scene: Scene, path: Path) -> None:
    """Write a scene as PNG of 1620 × 1260 pixels with a palette."""
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 18}):
        figure = Figure(figsize=(9, 7), dpi=180, facecolor="white")
        axes = figure.add_axes((0.065, 0.2, 0.92, 0.92 * 9 / 7 * HEIGHT / WIDTH))
        _frame(axes)
        if scene.cells is not None:
            axes.imshow(
                tinted(scene.cells).numpy(), extent=(-WIDTH, WIDTH, -HEIGHT, HEIGHT), interpolation="nearest"
            )
        _legend(figure, [*_points(axes, scene), *_arrows(axes, scene)])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def _frame(axes: Axes) -> None:
    axes.set_xlim(-WIDTH, WIDTH)
    axes.set_ylim(-HEIGHT, HEIGHT)
    axes.set_aspect("equal")
    axes.set_xticks([-2, -1, 0, 1, 2])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(color="#bbbbbb", labelcolor="#6b6b6b", labelsize=16, length=3, pad=2)
    for side in axes.spines.values():
        side.set_color("#bbbbbb")


def _points(axes: Axes, scene: Scene) -> list[Entry]:
    entries = []
    if len(scene.fitted):
        axes.plot(*scene.fitted.T, "o", color=GREY, markersize=2.8, markeredgewidth=0, zorder=2)
        entries.append(Entry(0, 0.5, "data", GREY, marker="o"))
    if len(scene.codes):
        size = 10 if len(scene.codes) <= 16 else 6.5
        axes.plot(*scene.codes.T, "o", color=INK, markersize=size, markeredgecolor="white", zorder=5)
        entries.append(Entry(0, 1.5, "code", INK, marker="o"))
    if len(scene.others):
        axes.plot(*scene.others.T, "x", color=PURPLE, markersize=6.5, markeredgewidth=1.8, zorder=5)
        entries.append(Entry(1.92, 0.5, "value in training", PURPLE, marker="x"))
    return entries + _scales(axes, scene)


def _scales(axes: Axes, scene: Scene) -> list[Entry]:
    if not len(scene.scales):
        return []
    for start, path in zip(scene.starts, scene.scales, strict=True):
        axes.plot(*path.T, "-", color=PURPLE, linewidth=1.4, zorder=2)
        axes.plot(*torch.stack([path[-1], start]).T, ":", color=GREY, linewidth=1.4, zorder=1)
    count = scene.scales.shape[1]
    for number in range(count):
        size = 13 - 9 * number / max(count - 1, 1)
        axes.plot(
            *scene.scales[:, number].T, "o", color=PURPLE, markersize=size, markeredgecolor="white", zorder=3
        )
    return [Entry(0.6, 0.5, "value, from the coarsest scale to the finest", PURPLE, marker="o")]


def _arrows(axes: Axes, scene: Scene) -> list[Entry]:
    axes.plot(*scene.starts.T, "o", color=BLUE, markersize=3, markeredgewidth=0, zorder=3)
    _quiver(axes, scene.starts, DECODER_SCALE * scene.decoder, BLUE)
    entries = [Entry(0.6, 1.5, "decoder's gradient", BLUE, arrow=True)]
    factor = own_factor(scene.own)
    if factor:
        _quiver(axes, scene.starts, DECODER_SCALE * factor * scene.own, ORANGE)
        times = f" × {factor:g}" if factor != 1 else ""
        entries.append(Entry(1.92, 1.5, f"own loss{times}", ORANGE, arrow=True))
    if len(scene.moves):
        axes.plot(*scene.batch.T, "s", color=GREEN, markersize=5.5, markeredgecolor="white", zorder=6)
        longest = scene.moves.norm(dim=-1).max()
        _quiver(axes, scene.codes, LONGEST_MOVE / longest * scene.moves, GREEN, width=0.0056, zorder=6)
        entries.append(Entry(0.6, 0.5, "step of the codes", GREEN, marker="s", arrow=True))
    return entries


def own_factor(own: Tensor) -> float:
    """The round number by which the arrows of the quantizer's own loss are multiplied; 0 without such a loss.

    The scale is that of the decoder's gradient, and the longest arrow gets a length of up to LONGEST_OWN.
    """
    longest = DECODER_SCALE * float(own.norm(dim=-1).max()) if len(own) else 0.0
    if longest < 1e-9:
        return 0.0
    power = 10.0 ** math.floor(math.log10(LONGEST_OWN / longest))
    return max(step * power for step in (1, 1.5, 2, 3, 5, 7) if step * power * longest <= LONGEST_OWN * (1 + 1e-6))


def _quiver(
    axes: Axes, starts: Tensor, arrows: Tensor, colour: str, width: float = 0.0036, zorder: float = 4
) -> None:
    visible = arrows.norm(dim=-1) > VISIBLE
    shape: dict[str, Any] = {"headwidth": 3.6, "headlength": 4.2, "headaxislength": 3.8, "minlength": 0.5}
    axes.quiver(
        *starts[visible].T,
        *arrows[visible].T,
        color=colour,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=width,
        zorder=zorder,
        **shape,
    )


def _legend(figure: Figure, entries: list[Entry]) -> None:
    """Two rows below the picture, in which every entry has its place."""
    axes = figure.add_axes((0.065, 0.0, 0.92, 0.155))
    axes.set_xlim(0, 3)
    axes.set_ylim(0, 2)
    axes.axis("off")
    for x, y, text, colour, marker, arrow in entries:
        if marker:
            axes.plot(x + 0.05, y, marker, color=colour, markersize=9, markeredgewidth=2)
        if arrow:
            style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.4, "mutation_scale": 18}
            axes.annotate("", (x + 0.17, y), (x + (0.05 if marker else 0.0), y), arrowprops=style)
        axes.text(x + (0.2 if arrow else 0.11), y, text, va="center", color=INK)
