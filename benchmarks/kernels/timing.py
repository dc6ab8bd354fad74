"""Rivals timed in turns, so that a slow moment of the machine falls on all of them."""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.kernels.rivals import Rival, Work
from benchmarks.kernels.shapes import Shape

LEAST, MOST = 3, 15  # timed runs of each rival
BUDGET_S = 3.0  # of timed runs a rival, once it has the least
BRIEF_S = 0.1  # below this a run is preceded by one that is not timed
PAUSE_S = 0.01  # for the threads of the rival before, which wait for more work with the core held


@dataclass(frozen=True)
class Times:
    """Milliseconds of one rival's runs: their median, quartiles and extremes."""

    median: float
    least: float
    lower: float
    upper: float
    most: float
    runs: int

    def overlaps(self, other: "Times") -> bool:
        """Whether the middle halves of the two overlap: the difference is no larger than the spread."""
        return self.lower <= other.upper and other.lower <= self.upper


def summary(milliseconds: Sequence[float]) -> Times:
    """Of at least two runs."""
    lower, median, upper = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Times(median, min(milliseconds), lower, upper, max(milliseconds), len(milliseconds))


def interleave(
    rivals: Sequence[Rival], x: Tensor, codebook: Tensor, *, budget_s: float = BUDGET_S
) -> tuple[dict[str, Times], dict[str, str]]:
    """Times of each rival on these vectors, by name; and of each that could not do it, why.

    Rounds in which every rival has one turn, in an order that changes. A brief run comes right after one that is
    not timed, and that after a pause: it finds its caches filled and no other library's threads still spinning.
    """
    works, failures = prepare_all(rivals, x, codebook)
    taken: dict[str, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    for _ in range(MOST):
        waiting = [name for name in works if len(taken[name]) < LEAST or sum(taken[name]) < 1000 * budget_s]
        order.shuffle(waiting)
        for name in waiting:
            if taken[name] and taken[name][-1] < 1000 * BRIEF_S:
                time.sleep(PAUSE_S)
                works[name]()
            taken[name].append(milliseconds(works[name], x.device))
    return {name: summary(runs) for name, runs in taken.items()}, failures


def prepare_all(rivals: Sequence[Rival], x: Tensor, codebook: Tensor) -> tuple[dict[str, Work], dict[str, str]]:
    """Each rival prepared and run once, by name; and of each that could not be, why."""
    works: dict[str, Work] = {}
    failures: dict[str, str] = {}
    shape = Shape(*x.shape[:1], *codebook.shape)
    for rival in rivals:
        if not fits(rival, shape, x.device):
            failures[rival.name] = "not enough memory"
            continue
        try:
            work = rival.prepare(x, codebook)
            work()
        except Exception as error:  # another library may raise anything; it is reported, and the run goes on
            failures[rival.name] = first_line(error)
        else:
            works[rival.name] = work
    return works, failures


def fits(rival: Rival, shape: Shape, device: torch.device) -> bool:
    """Whether the rival's N × K matrices have room in what is free now."""
    return rival.matrices * shape.n * shape.k * 4 <= free_memory(device)


def free_memory(device: torch.device) -> float:
    """Bytes; without bound where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    (available,) = [line for line in lines if line.startswith("MemAvailable:")] or ["MemAvailable: inf"]
    return float(available.split()[1]) * 1024


def milliseconds(work: Work, device: torch.device) -> float:
    """Of one run: the device's own events on a GPU, the clock on a CPU."""
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
    """Each rival's median over that of the one of ours it stands against; and is the difference only noise?"""
    return {
        rival.name: {
            "ratio": times[rival.name].median / times[rival.against].median,
            "noise": times[rival.name].overlaps(times[rival.against]),
        }
        for rival in rivals
        if rival.name != rival.against and {rival.name, rival.against} <= times.keys()
    }
