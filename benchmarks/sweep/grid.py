"""The trainings of a sweep."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from benchmarks.training import Recipe
from benchmarks.variants import base_name

AXES = ("codebook_size", "dim", "learning_rate")
Setting = tuple[int, int, float]  # one value of each axis
Number = TypeVar("Number", int, float)

# A step of the Gumbel quantizer reads N·K logits: at K = 65536 it takes 18 times as long as a step of `vq`.
DEFAULT_LIMITS = {"gumbel": 4096}


@dataclass(frozen=True)
class Axes:
    """The values of each axis, and the seeds for every setting."""

    codebook_sizes: tuple[int, ...]
    dims: tuple[int, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def centre(self) -> Setting:
        """For each axis, the value nearest to the recipe's by ratio."""
        return (
            _nearest(self.codebook_sizes, Recipe.codebook_size),
            _nearest(self.dims, Recipe.dim),
            _nearest(self.learning_rates, Recipe.learning_rate),
        )

    def star(self) -> list[Setting]:
        """Return the settings that vary one axis at a time through the centre, without duplicates."""
        k, d, rate = self.centre
        settings = [
            *((size, d, rate) for size in self.codebook_sizes),
            *((k, dim, rate) for dim in self.dims),
            *((k, d, each) for each in self.learning_rates),
        ]
        return list(dict.fromkeys(settings))

    def cross(self) -> list[Setting]:
        """Return every combination."""
        return list(itertools.product(self.codebook_sizes, self.dims, self.learning_rates))


SMALL = Axes((256, 1024, 4096, 16384, 65536), (8, 32, 128), (1e-3, 3e-3, 1e-2), (0,))
SMALL_STEPS = 200
FULL = Axes((256, 1024, 4096, 16384, 65536, 262144), (8, 32, 64, 256), (3e-4, 1e-3, 3e-3, 1e-2), (0, 1, 2))
FULL_STEPS = 3000


@dataclass(frozen=True)
class Point:
    """One training: a quantizer, and the recipe with the setting's K, D, learning rate and seed."""

    name: str
    recipe: Recipe

    def __str__(self) -> str:
        recipe = self.recipe
        rate = f"learning rate {recipe.learning_rate:g}"
        return f"{self.name} at K {recipe.codebook_size}, D {recipe.dim}, {rate}, seed {recipe.seed}"


@dataclass(frozen=True)
class Grid:
    """The quantizers, the axes, whether the axes are crossed, and the rest of the recipe.

    limits  the largest K for a quantizer, by its registered name
    """

    names: Sequence[str]
    axes: Axes
    base: Recipe
    crossed: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)

    def settings(self) -> list[Setting]:
        return self.axes.cross() if self.crossed else self.axes.star()

    def points(self) -> list[Point]:
        """Return each point once. Quantizers of a setting and seed come together, so that a partial sweep compares
        them.
        """
        return [point for point in self._all() if not self._beyond(point)]

    def left_out(self) -> list[Point]:
        """Return the points that the limits exclude."""
        return [point for point in self._all() if self._beyond(point)]

    def _all(self) -> Iterator[Point]:
        for (size, dim, rate), seed in itertools.product(self.settings(), self.axes.seeds):
            recipe = replace(self.base, codebook_size=size, dim=dim, learning_rate=rate, seed=seed)
            yield from (Point(name, recipe) for name in self.names)

    def _beyond(self, point: Point) -> bool:
        return point.recipe.codebook_size > self.limits.get(base_name(point.name), math.inf)


def _nearest(values: Sequence[Number], wanted: float) -> Number:
    return min(values, key=lambda value: abs(math.log(value / wanted)))
