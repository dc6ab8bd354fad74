"""The command: all measurements in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.errors import InputError
from benchmarks.kernels import growth, load, measure_real, real
from benchmarks.kernels.exactness import DATA, Data, wrong_share
from benchmarks.kernels.floors import floors_ms, has_floors
from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.memory import allowance, peak_memory
from benchmarks.kernels.results import Point, Results, Row, Wrong
from benchmarks.kernels.rivals import SEARCHES, Rival, implementation_that_runs, usable
from benchmarks.kernels.shapes import CUDA_SHAPES, SHAPES, Shape, draw, parse
from benchmarks.kernels.steps import STEPS
from benchmarks.kernels.timing import first_line, interleave, run_all


@dataclass(frozen=True)
class Settings:
    """What to measure.

    shapes  of random vectors
    seed    of random vectors
    parts   keys of PARTS
    folder  for data that take long to make
    """

    device: torch.device
    shapes: tuple[Shape, ...]
    seed: int = 0
    parts: tuple[str, ...] = ("random",)
    folder: Path = Path("runs/kernels/data")


@dataclass(frozen=True)
class Task:
    """One measurement: its name, and the function that takes and stores it."""

    name: str
    run: Callable[[], object]


def settle(device: str, shapes: Sequence[str], only: Sequence[str], out: Path) -> Settings:
    """Return settings from the command line's options; without shapes or parts, the device's default ones. Raises:
    InputError.
    """
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device: {device!r} cannot be used: {first_line(error)}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"--device: {device!r} cannot be used: expected cpu or cuda")
    possible = ("random",) if chosen.type == "cuda" else tuple(PARTS)
    for part in only:
        if part not in possible:
            raise InputError(f"--only: got {part!r}; on {chosen.type} expected {' or '.join(possible)}")
    standard = CUDA_SHAPES if chosen.type == "cuda" else SHAPES
    return Settings(
        chosen,
        shapes=tuple(dict.fromkeys(map(parse, shapes))) or standard,
        parts=tuple(part for part in possible if not only or part in only),
        folder=out / "data",
    )


def tasks(settings: Settings, results: Results) -> list[Task]:
    """Return all measurements of the chosen parts."""
    device = settings.device
    results.implementation = implementation_that_runs(device)
    results.left_out = [*usable(SEARCHES, device)[1], *usable(STEPS, device)[1]]
    return [task for part in settings.parts for task in PARTS[part](settings, results)]


def random_tasks(settings: Settings, results: Results) -> list[Task]:
    """Return the measurements on random vectors, the quick and noisy ones after the long ones."""
    device = settings.device
    searches, steps, gemms = (usable(rivals, device)[0] for rivals in (SEARCHES, STEPS, GEMMS))
    planned: list[Task] = []

    def plan(name: str, run: Callable[..., None], *arguments: object) -> None:
        planned.append(Task(name, lambda: run(*arguments)))

    for shape in settings.shapes:
        plan(f"search {shape}", time_rivals, settings, shape, searches, gemms, results.search)
    for shape in settings.shapes:
        plan(f"training step {shape}", time_rivals, settings, shape, steps, [], results.step)
    for row, shape in enumerate(settings.shapes):
        plan(f"memory, search {shape}", measure_memory, settings, searches, results.search, row)
        plan(f"memory, training step {shape}", measure_memory, settings, steps, results.step, row)
    for data in DATA:
        plan(f"wrong indices, {data.name}", count_wrong, settings, data, searches, results.exactness)
    drawn = [rival for rival in (*searches, *gemms) if rival.name in growth.DRAWN]
    for shape in growth.shapes():
        plan(f"growth {shape}", time_point, settings, shape, drawn, results.growth)
    return planned


def real_tasks(settings: Settings, results: Results) -> list[Task]:
    """Return the measurements on real data, after the tasks that make these."""
    folder = settings.folder
    return [
        *(Task(f"train {made.name}", partial(made.load, folder)) for made in real.TRAININGS),
        *(
            Task(f"search {data}", partial(measure_real.measure_search, data, folder, results.real))
            for data in real.DATA
        ),
        *(
            Task(f"memory, first call {data}", partial(measure_real.measure_memory, results.real, row))
            for row, data in enumerate(real.DATA)
        ),
        *(
            Task(f"training step {data}", partial(measure_real.measure_step, data, folder, results.real_step))
            for data in real.STEPPED
        ),
        *(
            Task(
                f"search among {size} codes",
                partial(measure_real.measure_size, real.GROWING, size, folder, results.pruning),
            )
            for size in measure_real.SIZES
        ),
    ]


def load_tasks(settings: Settings, results: Results) -> list[Task]:
    """Return the measurement beside busy processes."""
    measure = partial(load.measure_load, real.LOADED, settings.folder, results.load)
    return [Task("under load", measure)]


PARTS = {"random": random_tasks, "real": real_tasks, "load": load_tasks}


def run(settings: Settings, results: Results, planned: Sequence[Task], started: Callable[[str], None]) -> None:
    """Run the tasks in order, calling `started` with the name of each. Ctrl-C ends early and keeps the results so
    far.
    """
    try:
        for task in planned:
            started(task.name)
            task.run()
            if settings.device.type == "cuda":
                torch.cuda.empty_cache()
    except KeyboardInterrupt:
        results.interrupted = True


def time_rivals(
    settings: Settings, shape: Shape, rivals: list[Rival], gemms: list[Rival], rows: list[Row]
) -> None:
    device = settings.device
    times, failures = interleave([*rivals, *gemms], *draw(shape, device, settings.seed))
    timed = [rival.name for rival in gemms if rival.name in times]
    row = Row(shape, [*rivals, *gemms], allowance(shape), times, failures)
    row.gemm = min(timed, key=lambda name: times[name].median, default="")
    if gemms and device.type == "cuda" and has_floors(torch.cuda.get_device_name(device)):
        row.floors = floors_ms(shape)
    rows.append(row)


def measure_memory(settings: Settings, rivals: list[Rival], rows: list[Row], index: int) -> None:
    row = rows[index]
    row.memory = {
        rival.name: peak_memory(rival, row.shape, settings.device)
        for rival in rivals
        if rival.name not in row.failures
    }


def count_wrong(settings: Settings, data: Data, rivals: list[Rival], found: list[Wrong]) -> None:
    x, codebook = data.tensors(settings.device, settings.seed)
    ran, failures = run_all(rivals, x, codebook)
    shares = {name: wrong_share(outputs[0], x, codebook) for name, (_, outputs) in ran.items()}
    found.append(Wrong(data.name, data.k, data.d, shares, failures))


def time_point(settings: Settings, shape: Shape, rivals: list[Rival], points: list[Point]) -> None:
    x, codebook = draw(shape, settings.device, settings.seed)
    times, _ = interleave(rivals, x, codebook, budget_s=growth.BUDGET_S)
    points.append(Point(shape, times))
