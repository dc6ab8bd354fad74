"""Times of calls that launch nothing: this library's, the same without replay, and the main peer's.

All work on tensors of the CPU so small that computing with them hardly counts. What a launch itself costs on the
host, of a kernel of Triton or of PyTorch, is in none of the times.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import triton
from torch import Tensor

import quantizers
from benchmarks.gpu.run import rival_versions
from benchmarks.host.driver import host_only
from benchmarks.kernels.rivals import WithSetup, Work, usable
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.steps import GUMBEL, PAIRS
from benchmarks.kernels.timing import summary
from benchmarks.machine import record
from quantizers.kernels.common.triton.replay import FIRST, without_replay
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup

SHAPE = Shape(64, 40, 8)
WARM = 3  # runs before the timed ones of a round: what they ran last time has left the caches
RUNS = 20  # timed runs of a round
SEARCH, LOOKUP = "search", "search with codes and loss"


@dataclass(frozen=True)
class Call:
    """A call to measure."""

    name: str
    prepare: Callable[[Tensor, Tensor], Work]
    peer: str  # the call of this library that it is compared with; its own name for one of this library


def calls() -> list[Call]:
    """Return the searches of this library, its training steps and the peer's, without what is not installed."""
    searches = [
        Call(SEARCH, lambda x, codes: lambda: nearest_code(x[None], codes[None]), SEARCH),
        Call(LOOKUP, lambda x, codes: lambda: nearest_lookup(x[None], codes[None], 0.25, 0.25), LOOKUP),
    ]
    # Sampled codes are looked up on the CPU, by indices that no kernel has written.
    methods = [pair for pair in PAIRS if pair.ours.name != GUMBEL]
    pairs = [(rival, pair.ours.name) for pair in methods for rival in (pair.ours, pair.peer)]
    fitting, _ = usable([rival for rival, _ in pairs], torch.device("cpu"))
    return searches + [Call(rival.name, rival.prepare, ours) for rival, ours in pairs if rival in fitting]


def run(rounds: int, on_round: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Return the microseconds of each call, and how many kernels of Triton it launches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    quantizers.warn_unused_codes(False)  # it counts on a CPU only
    try:
        launches = itertools.count()
        with host_only(lambda launch: next(launches)):
            rows = [*_rows(launches, rounds, on_round)]
        where = record(torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
        quantizers.warn_unused_codes(True)
    where["versions"] |= {"triton": triton.__version__, **rival_versions()}
    return {**where, "shape": str(SHAPE), "rounds": rounds, "runs": RUNS, "calls": rows}


def _rows(launches: Iterator[int], rounds: int, on_round: Callable[[], None]) -> Iterator[dict[str, Any]]:
    measured = calls()
    works = {call.name: _untimed_setup(call.prepare(*draw(SHAPE, torch.device("cpu")))) for call in measured}
    for work in works.values():
        for _ in range(FIRST + 1):
            work()
    samples: dict[tuple[str, bool], list[float]] = {}
    order, turns = random.Random(0), [(call.name, replays) for call in measured for replays in _ways(call)]
    for _ in range(rounds):
        order.shuffle(turns)
        for name, replays in turns:
            with _way(replays):
                samples.setdefault((name, replays), []).append(_microseconds(works[name]))
        on_round()
    for call in measured:
        before = next(launches)
        works[call.name]()
        row: dict[str, Any] = {"name": call.name, "against": call.peer, "launches": next(launches) - before - 1}
        row["us"] = asdict(summary(samples[call.name, True]))
        if (call.name, False) in samples:
            row["us_without_replay"] = asdict(summary(samples[call.name, False]))
        yield row


def _ways(call: Call) -> tuple[bool, ...]:
    """Whether to replay: with and without for this library's calls, which is nothing to the peer's."""
    return (True, False) if call.name == call.peer else (True,)


def _way(replays: bool) -> AbstractContextManager[None]:
    return nullcontext() if replays else without_replay()


def _untimed_setup(work: Work) -> Callable[[], object]:
    """Return the run alone: codes need not move between two runs whose results nobody sees."""
    return work.run if isinstance(work, WithSetup) else work


def _microseconds(work: Callable[[], object]) -> float:
    for _ in range(WARM):
        work()
    start = time.perf_counter()
    for _ in range(RUNS):
        work()
    return (time.perf_counter() - start) / RUNS * 1e6
