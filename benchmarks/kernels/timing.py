"""Interleaved timing of rivals, so that a slow moment of the machine affects all of them."""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.kernels.rivals import Rival, WithSetup, Work
from benchmarks.kernels.shapes import Shape

LEAST, MOST = 3, 15  # timed runs of each rival
BUDGET_S = 3.0  # seconds of timed runs per rival, beyond the least number of runs
BRIEF_S = 0.1  # a shorter run is preceded by one that is not timed
PAUSE_S = 0.01  # until the previous rival's threads, which spin while they wait for work, release the cores


@dataclass(frozen=True)
class Times:
    """Milliseconds of one rival's runs: median, quartiles and extremes."""

    median: float
    least: float
    lower: float
    upper: float
    most: float
    runs: int

    def overlaps(self, other: "Times") -> bool:
        """Whether the middle halves of the two overlap, so that the difference is no larger than the spread."""
        return self.lower <= other.upper and other.lower <= self.upper


def summary(milliseconds: Sequence[float]) -> Times:
    """Summarize at least two runs."""
    lower, median, upper = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Times(median, min(milliseconds), lower, upper, max(milliseconds), len(milliseconds))


def interleave(
    rivals: Sequence[Rival], x: Tensor, codebook: Tensor, *, budget_s: float = BUDGET_S, least: int = LEAST
) -> tuple[dict[str, Times], dict[str, str]]:
    """Return the times of each rival on these vectors by name, and the reason of each rival that failed.

    Every rival has one turn per round, in random order. A brief run follows a pause and an untimed run, so that
    its caches are filled and no other library's threads are still spinning. Each has at least `least` timed runs.
    """
    works, failures = prepare_all(rivals, x, codebook)
    measured: dict[str, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    for _ in range(MOST):
        waiting = [name for name in works if len(measured[name]) < least or sum(measured[name]) < 1000 * budget_s]
        order.shuffle(waiting)
        for name in waiting:
            if measured[name] and measured[name][-1] < 1000 * BRIEF_S:
                time.sleep(PAUSE_S)
                works[name]()
            measured[name].append(milliseconds(works[name], x.device))
    return {name: summary(runs) for name, runs in measured.items()}, failures


def prepare_all(rivals: Sequence[Rival], x: Tensor, codebook: Tensor) -> tuple[dict[str, Work], dict[str, str]]:
    """Prepare and run each rival once. Returns the prepared ones by name, and the reason of each failure."""
    ran, failures = run_all(rivals, x, codebook)
    return {name: work for name, (work, _) in ran.items()}, failures


def run_all(
    rivals: Sequence[Rival], x: Tensor, codebook: Tensor
) -> tuple[dict[str, tuple[Work, tuple[Tensor, ...]]], dict[str, str]]:
    """Prepare and run each rival once. Returns the prepared ones with their outputs, by name, and the reason of
    each failure."""
    ran: dict[str, tuple[Work, tuple[Tensor, ...]]] = {}
    failures: dict[str, str] = {}
    shape = Shape(*x.shape[:1], *codebook.shape)
    for rival in rivals:
        if not fits(rival, shape, x.device):
            failures[rival.name] = "not enough memory"
            continue
        if not is_brief(rival, shape, x.device):
            failures[rival.name] = f"not run on more than {rival.pairs:.0f} pairs of vector and code"
            continue
        try:
            work = rival.prepare(x, codebook)
            outputs = work()
        except Exception as error:  # another library may raise anything; report it and continue
            failures[rival.name] = first_line(error)
        else:
            ran[rival.name] = work, outputs
    return ran, failures


def fits(rival: Rival, shape: Shape, device: torch.device) -> bool:
    """Return whether the rival's N × K matrices fit in the free memory."""
    return rival.matrices * shape.n * shape.k * 4 <= free_memory(device)


def is_brief(rival: Rival, shape: Shape, device: torch.device) -> bool:
    """Return whether the rival takes no minutes on a GPU."""
    return device.type != "cuda" or shape.n * shape.k <= rival.pairs


def free_memory(device: torch.device) -> float:
    """Return bytes; infinity if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    (available,) = [line for line in lines if line.startswith("MemAvailable:")] or ["MemAvailable: inf"]
    return float(available.split()[1]) * 1024


def milliseconds(work: Work, device: torch.device) -> float:
    """Return the time of one run, by the device's events on a GPU and by the clock on a CPU."""
    if isinstance(work, WithSetup):
        work.setup()
        work = work.run
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def ratios(times: dict[str, Times], rivals: Sequence[Rival]) -> dict[str, dict[str, float | bool]]:
    """Return the ratio of each rival's median to its counterpart's, and whether the difference is only noise."""
    return {
        rival.name: {
            "ratio": times[rival.name].median / times[rival.against].median,
            "noise": times[rival.name].overlaps(times[rival.against]),
        }
        for rival in rivals
        if rival.name != rival.against and {rival.name, rival.against} <= times.keys()
    }
