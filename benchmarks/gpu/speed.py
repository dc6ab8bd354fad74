"""Times of searches and training steps, beside what torch has, the floors, and what the host does.

A first phase compiles, in many processes at once, what the next ones then time alone: searches and steps, then the
peer's steps, whose memory and failures shall not touch ours, then their graphs, since a capture that fails may
leave its process unusable. The profiler has a phase to itself, since it slows down what is timed after it in the
same process. Last comes what is built on the searches (others.py).

The largest shapes come first, in case the time runs out. A part is stopped after some time, so that one that hangs
does not take it from the others.
"""

import gc
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import host, others
from benchmarks.gpu.contenders import OTHERS, PEER_GRAPHS, PEERS, SEARCHED, SEARCHES, STEPPED, STEPS
from benchmarks.gpu.flash import FLASHES
from benchmarks.gpu.implementations import use_implementation
from benchmarks.gpu.profiling import Launched, profiled
from benchmarks.gpu.stages import Numbers, Phase, Place
from benchmarks.kernels.floors import floors_ms, has_floors
from benchmarks.kernels.rivals import Rival, usable
from benchmarks.kernels.shapes import Shape, draw, parse
from benchmarks.kernels.timing import LEAST, Times, first_line, interleave, prepare_all

SHAPES = (
    Shape(262144, 16384, 256),
    Shape(262144, 262144, 32),
    Shape(1048576, 8192, 8),
    Shape(16384, 16384, 64),
    Shape(32768, 8192, 8),
    Shape(8192, 1024, 256),
    Shape(65536, 1024, 4),
)
TINY = Shape(64, 40, 8)  # in the interpreter
BUDGET_S = 0.1  # of timed runs for each contender and shape, beyond the least number of runs
WARM_ROWS = 256  # the number of vectors is a run-time argument of the search and of the steps
COMPILED_PAIRS = 2**28  # largest N · K that torch.compile's functions run for while other processes compile

PART_S = 60.0  # the longest part took 24 seconds on an H200, and most took 3

COMPILE, SEARCH, STEP, PEER, PEER_GRAPH, HOST, KERNELS = (
    "compile ",
    "search ",
    "step ",
    "peer's step ",
    "graph of the peer's step ",
    "host ",
    "kernels ",
)
KINDS = (COMPILE, SEARCH, STEP, PEER, PEER_GRAPH, HOST, KERNELS, others.BENCH, *others.RUN)


def phases(interpreted: bool, workers: int) -> list[Phase]:
    shapes = [str(shape) for shape in (TINY,)] if interpreted else [str(shape) for shape in SHAPES]
    limit = math.inf if interpreted else PART_S
    compiled = () if interpreted else _of(COMPILE, shapes)
    graphs = () if interpreted else _of(PEER_GRAPH, shapes)
    # Variants are counted in a process that has loaded no other kernel.
    return [
        Phase((*compiled, HOST + host.VARIANTS), workers, limit),
        Phase((*_of(SEARCH, shapes), *_of(STEP, shapes), *_of(PEER, shapes)), seconds=limit),
        Phase(graphs, seconds=limit),
        Phase((*_of(HOST, host.CALLS), *_of(KERNELS, shapes)), seconds=limit),
        Phase((others.BENCH,), seconds=limit),
        Phase(tuple(part for kind in others.RUN for part in _others(kind, interpreted)), seconds=limit),
    ]


def _others(kind: str, interpreted: bool) -> tuple[str, ...]:
    return _of(kind, map(str, (TINY,) if interpreted else others.SHAPES[kind]))


def _of(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(kind + name for name in names)


def run(part: str, place: Place) -> Numbers:
    torch.set_float32_matmul_precision("highest")
    kind = next(kind for kind in KINDS if part.startswith(kind))
    name = part.removeprefix(kind)
    if kind == HOST:
        return host.measure(name, place)
    if kind == others.BENCH:
        return others.bench(place)
    return RUN[kind](parse(name), place)


def _search(shape: Shape, place: Place) -> Numbers:
    numbers = _times(SEARCHED, shape, place)
    return numbers | _floors(shape, numbers["times_ms"], place)


def _compile(shape: Shape, place: Place) -> Numbers:
    """Run everything once: this library on few vectors, torch's functions on all of them unless they are many.

    The tiles of flash-kmeans depend on the number of vectors, so it gets all of them.
    """
    x, codebook = draw(Shape(WARM_ROWS, shape.k, shape.d), place.device)
    failures = prepare_all([*(search.rival for search in SEARCHES), *STEPS], x, codebook)[1]
    others = OTHERS if shape.n * shape.k <= COMPILED_PAIRS else ()
    rivals, _ = usable((*others, *FLASHES), place.device)
    failures |= prepare_all(rivals, *draw(shape, place.device))[1]
    return {"failures": failures}


def _times(contenders: Sequence[Rival], shape: Shape, place: Place) -> Numbers:
    """Return the times of the contenders, the reasons of those that failed, and sentences on those left out."""
    torch._dynamo.reset()  # otherwise it would compile for all shapes from the second one on
    fitting, left_out = usable(contenders, place.device)
    times, failures = _interleaved(fitting, *draw(shape, place.device), place)
    return _numbers(times, failures, left_out)


def _times_of_each(contenders: Sequence[Rival], shape: Shape, place: Place) -> Numbers:
    """Return the same of one contender after the other, since the matrices of each may fill the memory."""
    fitting, left_out = usable(contenders, place.device)
    x, codebook = draw(shape, place.device)
    times: dict[str, Times] = {}
    failures: dict[str, str] = {}
    for rival in fitting:
        try:
            time, failed = _interleaved([rival], x, codebook, place)
        except RuntimeError as error:  # for example no memory left, later than in the first run
            failures[rival.name] = first_line(error)
        else:
            times |= time
            failures |= failed
    return _numbers(times, failures, left_out)


def _interleaved(
    rivals: Sequence[Rival], x: Tensor, codebook: Tensor, place: Place
) -> tuple[dict[str, Times], dict[str, str]]:
    least = 2 if place.interpreted else LEAST
    try:
        with use_implementation("triton"):
            return interleave(rivals, x, codebook, budget_s=BUDGET_S, least=least)
    finally:
        if not place.interpreted:
            gc.collect()  # a graph holds its memory until it is gone
            torch.cuda.empty_cache()


def _numbers(times: dict[str, Times], failures: dict[str, str], left_out: list[str]) -> Numbers:
    numbers: Numbers = {"times_ms": {name: asdict(each) for name, each in times.items()}, "failures": failures}
    return numbers | ({"left_out": left_out} if left_out else {})


def _kernels(shape: Shape, place: Place) -> Numbers:
    """Return what one run of each search and step launches, by contender, and the reason of each that failed."""
    rivals, _ = usable((*(search.rival for search in SEARCHES), *FLASHES, *STEPS), place.device)
    launched: dict[str, Launched] = {}
    failures: dict[str, str] = {}
    x, codebook = draw(shape, place.device)
    for rival in rivals:
        with use_implementation("triton"):
            works, failed = prepare_all([rival], x, codebook)
            failures |= failed
            for name, work in works.items():
                try:
                    launched[name] = profiled(work, place)
                except RuntimeError as error:
                    failures[name] = first_line(error)
    return {"launched": launched, "failures": failures}


def _floors(shape: Shape, times: dict[str, dict[str, Any]], place: Place) -> Numbers:
    """Return the floors, and each search's share of its own: 1 is as fast as the device can be."""
    if place.interpreted or not has_floors(torch.cuda.get_device_name(place.device)):
        return {}
    floors = floors_ms(shape)
    shares = {
        name: floors[search.floor] / times[name]["median"]
        for search in SEARCHES
        for name in (search.rival.name, search.graph.name)
        if name in times
    }
    return {"floors_ms": floors, "share_of_floor": shares}


RUN: dict[str, Callable[[Shape, Place], Numbers]] = {
    COMPILE: _compile,
    SEARCH: _search,
    STEP: partial(_times, STEPPED),
    PEER: partial(_times_of_each, PEERS),
    PEER_GRAPH: partial(_times_of_each, PEER_GRAPHS),
    KERNELS: _kernels,
    **others.RUN,
}
