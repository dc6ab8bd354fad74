"""The runs of each contender on each cell as one line, and how long ours take to what others reach."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.offline.cells import Cell
from benchmarks.offline.contenders import BY_NAME, Contender
from benchmarks.offline.stored import Run

SAME = 1e-4  # relative difference of inertias that rounding can explain


@dataclass(frozen=True)
class Line:
    """Medians over the rounds of one contender on one cell.

    points  (seconds, inertia) of every assignment of all vectors during the fit, and of its end, in the round of
            median time
    errors  the reasons of the rounds that failed
    """

    cell: Cell
    contender: Contender
    rounds: int
    seconds: float
    inertia: float
    peak_bytes: float | None
    passes: int | None
    instructions: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[str, ...] = ()

    @property
    def per_pass(self) -> float | None:
        """Seconds per assignment of all vectors to codes."""
        return self.seconds / self.passes if self.passes else None

    def record(self) -> dict[str, Any]:
        return {
            "contender": self.contender.name,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "inertia": self.inertia,
            "peak_bytes": self.peak_bytes,
            "passes": self.passes,
            "seconds_per_pass": self.per_pass,
            "instructions": self.instructions,
            "points": self.points,
            "errors": self.errors,
        }


@dataclass(frozen=True)
class Reach:
    """How long ours takes to the inertia of another contender on a cell.

    ours     the contender of this library that gets there first; None if none does
    seconds  until then
    """

    cell: Cell
    rival: Line
    ours: str | None
    seconds: float | None

    @property
    def lead(self) -> float:
        """The rival's time over ours; 0 if ours does not get there."""
        return self.rival.seconds / self.seconds if self.seconds else 0.0


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return a line for each contender and cell with at least one finished run, in the order of the runs."""
    groups: dict[tuple[Cell, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.cell, run.contender), []).append(run)
    made = [_line(*key, group) for key, group in groups.items() if any(not run.error for run in group)]
    order = list(BY_NAME)
    cells = list(dict.fromkeys(run.cell for run in runs))
    return sorted(made, key=lambda line: (cells.index(line.cell), order.index(line.contender.name)))


def best_rival(found: Sequence[Line], cell: Cell) -> Line | None:
    """Return the fastest of the others, as called, whose inertia is the least on the cell but for `SAME`."""
    others = rivals(found, cell)
    least = min((line.inertia for line in others), default=0.0)
    best = [line for line in others if line.inertia <= (1 + SAME) * least]
    return min(best, key=lambda line: line.seconds, default=None)


def rivals(found: Sequence[Line], cell: Cell) -> list[Line]:
    return [line for line in called(found, cell) if not line.contender.ours]


def called(found: Sequence[Line], cell: Cell) -> list[Line]:
    """Return the lines of a cell whose contenders ran as their users call them."""
    return [line for line in found if line.cell == cell and not line.contender.from_seeds]


def reach(found: Sequence[Line], rival: Line) -> Reach | None:
    """Return how long ours takes to the rival's inertia; None if none of ours was measured on its cell."""
    ours = [line for line in called(found, rival.cell) if line.contender.ours]
    if not ours:
        return None
    there = [
        (seconds, line.contender.name)
        for line in ours
        for seconds, inertia in line.points
        if inertia <= rival.inertia
    ]
    seconds, name = min(there, default=(None, None))
    return Reach(rival.cell, rival, name, seconds)


def _line(cell: Cell, contender: str, group: Sequence[Run]) -> Line:
    whole = sorted((run.numbers for run in group if not run.error), key=lambda numbers: float(numbers["seconds"]))
    middle = whole[(len(whole) - 1) // 2]
    peaks = [numbers["peak_bytes"] for numbers in whole if numbers["peak_bytes"] is not None]
    return Line(
        cell,
        BY_NAME[contender],
        len(whole),
        seconds=statistics.median(numbers["seconds"] for numbers in whole),
        inertia=statistics.median(numbers["inertia"] for numbers in whole),
        peak_bytes=max(peaks, default=None),
        passes=middle["passes"],
        instructions=middle["instructions"],
        points=(*(tuple(point) for point in middle["inertias"]), (middle["seconds"], middle["inertia"])),
        errors=tuple(run.error for run in group if run.error),
    )
