"""Pictures to look at: rows of images, each with a label."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.chain.sources import to_grey_levels
from benchmarks.plots import DPI, save

CELL = 80  # smallest displayed size of an image, in pixels; smaller images are enlarged by a whole factor
GAP = 6  # pixels between two images
LABELS = 250  # pixels for the row labels
WHITE = 255


class Strip(NamedTuple):
    """One row of a picture: its label, and images [B, C, H, W] in [−1, 1]."""

    name: str
    images: Tensor


def write(path: Path, strips: Sequence[Strip]) -> Path:
    """Draw the rows into one PNG file."""
    rows = [canvas(strip.images) for strip in strips]
    columns = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, columns - row.shape[1]), (0, 0)), constant_values=WHITE) for row in rows]
    whole = np.concatenate(rows)
    left = LABELS if any(strip.name for strip in strips) else 0
    width, height = left + columns, len(whole)
    figure = Figure(figsize=(width / DPI, height / DPI))
    figure.figimage(whole, xo=left)
    bottom = height
    for strip, row in zip(strips, rows, strict=True):
        position = {"x": (left - 2 * GAP) / width, "y": (bottom - len(row) / 2) / height}
        figure.text(**position, s=strip.name, ha="right", va="center", fontsize=9)
        bottom -= len(row)
    save(path, figure)
    return path


def canvas(images: Tensor) -> np.ndarray:
    """Return one row of images as pixels, uint8 [h, w, 3], with a gap below and to the right of each.

    Grey images are drawn as ink: −1, the digits' paper, is white.
    """
    pixels = to_grey_levels(images)
    if pixels.shape[1] == 1:
        pixels = (WHITE - pixels).expand(-1, 3, -1, -1)
    times = max(1, CELL // pixels.shape[2])
    large = pixels.repeat_interleave(times, 2).repeat_interleave(times, 3)
    framed = torch.nn.functional.pad(large, (0, GAP, 0, GAP), value=WHITE)
    return framed.permute(2, 0, 3, 1).flatten(1, 2).numpy()


def in_rows(images: Tensor, columns: int, name: str = "") -> list[Strip]:
    """Arrange images in rows of `columns`, with the name beside the first row."""
    return [Strip(name if i == 0 else "", row) for i, row in enumerate(images.split(columns))]
