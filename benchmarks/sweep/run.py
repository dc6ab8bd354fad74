"""The trainings of a grid, one after the other, each by the utilization benchmark's `run`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import utilization
from benchmarks.data import Photographs
from benchmarks.errors import InputError
from benchmarks.sweep.grid import Grid, Point
from benchmarks.training import Recipe
from benchmarks.utilization import Watcher

NO_MEMORY = (torch.OutOfMemoryError, MemoryError)


@dataclass
class Results:
    """The results of a sweep.

    points   one flat dictionary each: "quantizer", "asked_codebook_size", "dim", "learning_rate", "seed", and a
             StoredResult's numbers
    failed   a sentence for each point that did not fit in memory
    missing  the points that were not reached
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: list[Point] = field(default_factory=list)
    interrupted: bool = False


class PointWatcher(Watcher):
    """A Watcher that also receives the next point and failures."""

    def next(self, point: Point) -> None:
        """This point is about to be trained or loaded from disk."""

    def failed(self, sentence: str) -> None:
        """The current point cannot be measured."""


def check(grid: Grid) -> None:
    """Try the device, and construct each quantizer at each K and D on the meta device, before any training.

    Raises: InputError.
    """
    utilization.check([], grid.base)
    names: dict[tuple[int, int], dict[str, None]] = {}  # for each size, in order and without duplicates
    for point in grid.points():
        names.setdefault((point.recipe.codebook_size, point.recipe.dim), {})[point.name] = None
    for (size, dim), here in names.items():
        try:
            with torch.device("meta"):
                utilization.check(list(here), replace(grid.base, codebook_size=size, dim=dim))
        except InputError as error:
            raise InputError(f"at K {size} and D {dim}: {error}") from error


def run(
    grid: Grid, photographs: Photographs, folder: Path, *, fresh: bool = False, watcher: PointWatcher | None = None
) -> Results:
    """Train and measure the grid's points, or load them from `folder`, which has a sub-folder for each setting.

    Ctrl-C ends early and returns the finished results. A point that does not fit in memory is skipped and
    reported.
    """
    watcher = watcher or PointWatcher()
    points = grid.points()
    results = Results()
    reached: set[Point] = set()
    try:
        for point in points:
            watcher.next(point)
            results.interrupted = _run_point(results, point, photographs, folder, fresh, watcher)
            if results.interrupted:
                break
            reached.add(point)
    except KeyboardInterrupt:  # between two trainings
        results.interrupted = True
    results.missing = [point for point in points if point not in reached]
    return results


def folder_name(recipe: Recipe) -> str:
    """Return the setting in characters that every file system accepts."""
    return f"K{recipe.codebook_size}-D{recipe.dim}-lr{recipe.learning_rate}-seed{recipe.seed}"


def _run_point(
    results: Results, point: Point, photographs: Photographs, folder: Path, fresh: bool, watcher: PointWatcher
) -> bool:
    """Add the point's numbers, or the reason why there are none, to the results. Returns whether Ctrl-C
    interrupted it.
    """
    recipe = point.recipe
    here = folder / folder_name(recipe)
    here.mkdir(parents=True, exist_ok=True)
    try:
        outcome = utilization.run([point.name], recipe, photographs, here, fresh=fresh, watcher=watcher, views=0)
    except NO_MEMORY as error:
        results.failed.append(f"{point}: {str(error).splitlines()[0]}")
        watcher.failed(results.failed[-1])
        return False
    if not outcome.interrupted:
        (result,) = outcome.finished
        asked = {
            "quantizer": point.name,
            "asked_codebook_size": recipe.codebook_size,
            "dim": recipe.dim,
            "learning_rate": recipe.learning_rate,
            "seed": recipe.seed,
        }
        results.points.append({**asked, **result.numbers})
    return outcome.interrupted
