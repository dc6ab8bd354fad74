"""What a search and a training step lose beside other processes that keep the cores busy."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.pruned import ALL_CODES, PRUNED, TRAINING
from benchmarks.kernels.real import RealData
from benchmarks.kernels.results import Slowdown
from benchmarks.kernels.rivals import FAISS, SEARCHES, Work, usable
from benchmarks.kernels.steps import PEER_VQ, STEPS, VQ
from benchmarks.kernels.timing import milliseconds, prepare_all

BUSY = 2  # processes
LIMIT_S = 120  # after which a busy process ends by itself, should this one be killed
PAUSE_S = 0.2  # until a busy process is at work
ROUNDS = 3
TURN_S = 0.5  # of one rival's runs in a round; at least one run
NAMES = (TRAINING, ALL_CODES, FAISS, *(rival.name for rival in GEMMS), VQ, PEER_VQ)
LOOP = f"import time\nend = time.monotonic() + {LIMIT_S}\nwhile time.monotonic() < end: pass"


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep `count` processes in a loop of Python."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-c", LOOP]))
        time.sleep(PAUSE_S)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_load(data: RealData, folder: Path, found: list[Slowdown]) -> None:
    """Run every rival alone and beside busy processes, in turns, and store what each loses."""
    rivals, _ = usable((*PRUNED, *SEARCHES, *GEMMS, *STEPS), torch.device("cpu"))
    x, codebook = data.load(folder)
    works, _ = prepare_all([rival for rival in rivals if rival.name in NAMES], x, codebook)
    alone: dict[str, list[float]] = {name: [] for name in works}
    beside: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        _take_turns(works, alone)
        with busy_processes(BUSY):
            _take_turns(works, beside)
    found += [Slowdown(name, statistics.median(alone[name]), statistics.median(beside[name])) for name in works]


def _take_turns(works: Mapping[str, Work], measured: dict[str, list[float]]) -> None:
    for name, work in works.items():
        measured[name].append(steady_milliseconds(work, TURN_S))


def steady_milliseconds(work: Work, seconds: float) -> float:
    """Return the mean time of runs that follow each other for so long, without the first if there are more.

    There is no pause between them, for which the system would favour the rival over the busy processes.
    """
    device = torch.device("cpu")
    runs = [milliseconds(work, device)]
    while sum(runs) < 1000 * seconds:
        runs.append(milliseconds(work, device))
    return statistics.fmean(runs[1:] or runs)
