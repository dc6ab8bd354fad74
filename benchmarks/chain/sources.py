"""Digits and photographs behind one interface: training batches and held-out images."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import digits
from benchmarks.chain.settings import DIGITS, Autoencoding
from benchmarks.crops import held_out_views, random_crops, to_unit_range
from benchmarks.data import TILE, Photographs, bundled, from_folder

PRIOR_SIDE = 64  # pixels, the side of the images that a prior over photographs models
VIEW_SIDE = 256  # pixels, the side of the held-out views that are compressed
LEAST_VIEWS, MOST_VIEWS = 4, 16


class Batch(NamedTuple):
    """Images and labels.

    images  float32 [B, C, H, W] in [−1, 1]
    labels  int64 [B], None without classes
    """

    images: Tensor
    labels: Tensor | None


class Source(ABC):
    """A data set.

    channels          of the images
    classes           number of labels, None without labels
    autoencoder_side  side in pixels of the images that the autoencoder is trained on
    prior_side        side in pixels of the images that the prior is trained on
    """

    channels: int
    classes: int | None
    autoencoder_side: int
    prior_side: int

    @abstractmethod
    def batch(self, count: int, side: int, generator: torch.Generator) -> Batch:
        """Return training images, drawn by the generator alone."""

    @abstractmethod
    def held_out(self) -> Batch:
        """Return images outside the training set: all held-out digits, or views of held-out photographs."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what identifies these images, for fingerprints and reports."""


class DigitSource(Source):
    """scikit-learn's digits, 8 × 8."""

    channels, classes = 1, digits.CLASSES
    autoencoder_side = prior_side = digits.SIDE

    def __init__(self) -> None:
        self.train, self.rest = digits.load()

    def batch(self, count: int, side: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self.train.images), (count,), generator=generator)
        return Batch(self.train.images[chosen], self.train.labels[chosen])

    def held_out(self) -> Batch:
        return Batch(*self.rest)

    def describe(self) -> dict[str, Any]:
        sizes = {"train": len(self.train.images), "held_out": len(self.rest.images)}
        return {"source": "scikit-learn's digits", **sizes, "split_seed": digits.SPLIT_SEED}


class PhotographSource(Source):
    """Random crops of photographs, and views of held-out ones."""

    channels, classes = 3, None
    autoencoder_side = TILE

    def __init__(self, photographs: Photographs) -> None:
        self.photographs = photographs
        smallest = min(min(photograph.pixels.shape[1:]) for photograph in photographs.train)
        self.prior_side = min(PRIOR_SIDE, smallest // TILE * TILE)

    def batch(self, count: int, side: int, generator: torch.Generator) -> Batch:
        return Batch(random_crops(self.photographs.train, count, generator, side), None)

    def held_out(self) -> Batch:
        photographs = self.photographs.held_out
        count = max(LEAST_VIEWS, min(MOST_VIEWS, len(photographs)))
        return Batch(held_out_views(photographs, count, VIEW_SIDE), None)

    def describe(self) -> dict[str, Any]:
        return self.photographs.describe()


def open_source(settings: Autoencoding) -> Source:
    """Open the data set. Raises: InputError for a folder without usable pictures."""
    if settings.data == DIGITS:
        return DigitSource()
    return PhotographSource(bundled() if settings.images is None else from_folder(Path(settings.images)))


def to_grey_levels(images: Tensor) -> Tensor:
    """Convert [−1, 1] to uint8 0 ... 255, as in a picture file."""
    return (to_unit_range(images) * 255).round().to(torch.uint8)


def cut(images: Tensor, side: int) -> Tensor:
    """Cut images [B, C, H, W] into tiles [B', C, side, side], row by row; incomplete tiles at the edges are
    dropped.
    """
    tiles = images.unfold(2, side, side).unfold(3, side, side)  # [B, C, rows, columns, side, side]
    return tiles.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous()
