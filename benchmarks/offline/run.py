"""The command: rounds over all cells, in which every contender has one turn, until the time is over."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.errors import InputError
from benchmarks.machine import date, usable_cores
from benchmarks.offline import stored
from benchmarks.offline.cells import Cell
from benchmarks.offline.contenders import CONTENDERS, Contender, usable
from benchmarks.offline.processes import measured
from benchmarks.offline.stored import Run
from benchmarks.offline.tasks import Task
from benchmarks.offline.vectors import distinct_positions, written

ROUNDS = 3
LONG_S = 30.0  # a run that takes longer is not repeated: its spread is small beside its cost
LIMIT_S = 300.0  # after which a run is stopped


@dataclass(frozen=True)
class Settings:
    """What to measure.

    budget_s  seconds after which no further run starts
    rounds    turns of each contender, as far as the budget allows
    fresh     whether to measure again what is stored
    """

    cells: tuple[Cell, ...]
    out: Path
    budget_s: float
    rounds: int = ROUNDS
    contenders: tuple[Contender, ...] = CONTENDERS
    fresh: bool = False
    limit_s: float = LIMIT_S
    threads: int = field(default_factory=usable_cores)

    @property
    def turns(self) -> int:
        """The number of turns, including those for which there may be no time."""
        return self.rounds * sum(each.fits(cell) for each in self.contenders for cell in self.cells)


@dataclass
class Results:
    """The runs, from this and earlier processes, and sentences on what is not among them."""

    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False

    def of(self, cell: Cell, contender: str) -> list[Run]:
        return [run for run in self.runs if (run.cell, run.contender) == (cell, contender)]


def named(names: Sequence[str]) -> tuple[Contender, ...]:
    """Return the contenders of these names, all without names. Raises: InputError."""
    unknown = [name for name in names if name not in {each.name for each in CONTENDERS}]
    if unknown:
        known = "; ".join(each.name for each in CONTENDERS)
        raise InputError(f"--contenders: got {unknown[0]!r}; expected one of: {known}")
    return tuple(each for each in CONTENDERS if not names or each.name in names)


class Benchmark:
    """Takes the turns of all contenders, in random order within a cell and a round."""

    def __init__(self, settings: Settings, results: Results, started: Callable[[str], None]) -> None:
        """Args: started: called with the name of each run before it starts, and of each stored one."""
        self.settings, self.results, self.started = settings, results, started
        self.contenders, results.left_out = usable(settings.contenders)
        self.end = time.monotonic() + settings.budget_s

    def run(self) -> None:
        """Take all turns; Ctrl-C ends them."""
        order = random.Random(0)
        try:
            for number in range(self.settings.rounds):
                for cell in self.settings.cells:
                    turns = [contender for contender in self.contenders if contender.fits(cell)]
                    order.shuffle(turns)
                    for contender in turns:
                        self._turn(cell, contender, number)
        except KeyboardInterrupt:
            self.results.interrupted = True

    def _turn(self, cell: Cell, contender: Contender, number: int) -> None:
        key = stored.fingerprint(cell, contender, self.settings.threads)
        folder = self.settings.out / "parts"
        earlier = None if self.settings.fresh else stored.load(folder, key, cell, contender.name, number)
        if earlier is None and not self._has_time(cell, contender, number):
            return
        self.started(f"{cell}: {contender.name}")
        run = earlier or self._measured(cell, contender, number)
        if not earlier and not run.error:
            stored.save(folder, key, run)
        self.results.runs.append(run)

    def _has_time(self, cell: Cell, contender: Contender, number: int) -> bool:
        """Whether the run should start: a first one while there is time, another one if it is short and fits."""
        left = self.end - time.monotonic()
        if number == 0:
            return left > 0
        walls = [float(run.numbers["wall"]) for run in self.results.of(cell, contender.name) if not run.error]
        return bool(walls) and max(walls) <= min(LONG_S, left)

    def _measured(self, cell: Cell, contender: Contender, number: int) -> Run:
        path = written(self.settings.out / "data", cell.source, cell.n, cell.d)
        seeds = None
        iterations = cell.iterations
        if contender.from_seeds:
            iterations = cell.iterations_from_seeds
            seeds = np.array(np.load(path, mmap_mode="r")[distinct_positions(path, cell.k, number)])
        task = Task(cell, str(path.absolute()), iterations, seeds, number, self.settings.threads)
        begin = time.perf_counter()
        numbers = measured(contender, task, self.settings.limit_s)
        wall = time.perf_counter() - begin
        return Run(cell, contender.name, number, numbers | {"wall": wall, "date": date()})
