"""The plane of a picture, and the fixed points in it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH, HEIGHT = 2.4, 1.6
"""The picture shows |first coordinate| ≤ WIDTH and |second coordinate| ≤ HEIGHT."""


@dataclass(frozen=True)
class Plane:
    """A plane through the origin of the space of the vectors, spanned by two orthonormal vectors.

    Args: axes: [2, D].
    """

    axes: Tensor

    @property
    def dim(self) -> int:
        """D, the channels of the space."""
        return self.axes.shape[1]

    def embed(self, points: Tensor) -> Tensor:
        """Points [..., 2] of the plane as vectors [..., D]."""
        return points @ self.axes

    def project(self, vectors: Tensor) -> Tensor:
        """The feet [..., 2] in the plane of vectors [..., D]."""
        return vectors @ self.axes.T


PLANE = Plane(torch.eye(2))
"""The plane itself."""


def two_roots_of_e8() -> Plane:
    """The plane that two roots of E8 at 60 degrees span, which holds six roots."""
    first = torch.tensor([1.0, 1.0, 0, 0, 0, 0, 0, 0]) / math.sqrt(2)
    second = torch.tensor([0.0, 1.0, 1.0, 0, 0, 0, 0, 0]) / math.sqrt(2)
    second = second - (second @ first) * first
    return Plane(torch.stack([first, second / second.norm()]))


def cloud(number: int = 240) -> Tensor:
    """The grey points [number, 2], to which codes are fitted: a tilted arc, of mean zero."""
    generator = torch.Generator().manual_seed(0)
    along = 2 * torch.rand(number, generator=generator) - 1
    arc = torch.stack([1.45 * along, 0.75 * (1 - 2 * along.square())], -1)
    points = arc + 0.17 * torch.randn(number, 2, generator=generator)
    angle = math.radians(25)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points - points.mean(0)) @ turn


def pixels(columns: int, rows: int) -> Tensor:
    """The centres [rows, columns, 2] of a picture's pixels, the topmost row first."""
    x, y = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (columns, rows))
    return torch.stack(torch.meshgrid(WIDTH * x, HEIGHT * y.flip(0), indexing="xy"), -1)


def starts() -> Tensor:
    """The points [70, 2] at which arrows start: evenly spaced, none of them at the origin."""
    return 0.95 * pixels(10, 7).reshape(-1, 2)


def batch() -> Tensor:
    """The squares [6, 2] for which the codes take a step: a small cluster to the upper right."""
    generator = torch.Generator().manual_seed(1)
    return torch.tensor([1.4, 0.9]) + 0.16 * torch.randn(6, 2, generator=generator)


def maps(number: int = 32, size: int = 4) -> Tensor:
    """Maps [number, size, size, 2], in which neighbours differ less than vectors that are far apart."""
    generator = torch.Generator().manual_seed(0)
    even = 0.75 * pixels(size, size)
    return even + 0.22 * torch.randn(number, size, size, 2, generator=generator)
