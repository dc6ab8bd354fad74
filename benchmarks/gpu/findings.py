"""What to look at first in a report of `python -m benchmarks gpu`: sentences, the most urgent first."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu.contenders import PEER_GRAPHS, PEERS, RIVALS, SEARCHES, STEPS, TORCH
from benchmarks.gpu.exact import EXACT
from benchmarks.gpu.flash import COUNTERPARTS, FLASH_GRAPHS, FLASHES
from benchmarks.gpu.goals import TIMES_PEER
from benchmarks.gpu.graphs import as_graph
from benchmarks.gpu.others import TUNE
from benchmarks.gpu.profiling import by_short_name, total_us
from benchmarks.gpu.report import failures
from benchmarks.gpu.speed import HOST, KERNELS, KINDS, PEER, PEER_GRAPH, SEARCH, STEP
from benchmarks.gpu.times import Parts, StepTimes, medians, of_kind, parts_of, steps
from benchmarks.gpu.units import ALL

SHARE = 0.5  # of the floor, from which on a search is fast enough
SLOW_COMPILE = 10.0  # seconds
EAGER = 2.0  # times as long as a graph, from which on the host is what limits a call
LEFT = 0.01  # of normal vectors
LEAST_STEP = 8  # products that a matrix unit adds at once, of the constant ACCUMULATION
LONGEST = 200  # characters of an error

OF_OTHERS = {rival.name for rival in (*RIVALS, *PEERS, *PEER_GRAPHS)}


def findings(record: dict[str, Any]) -> list[str]:
    """Return sentences: what is broken, then what is wrong, then what waits, then what is slow."""
    looks = LOOKS if record["interpreted"] else (*LOOKS, *LOOKS_ON_A_DEVICE)
    return [sentence for look in looks for sentence in look(record["stages"])]


def brief(error: str) -> str:
    """Return the line of an error that says most: the last of a log, otherwise the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    return lines[-1 if "its process ended" in lines[0] else 0][:LONGEST]


def _started(stages: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    for part, error in failures(stages.get(name, {"parts": {}})).items():
        if not error.startswith("not started"):
            yield part, brief(error)


def kernels_that_fail(stages: dict[str, Any]) -> Iterator[str]:
    for part, error in _started(stages, "smoke"):
        yield f"smoke, {part}, fails: {error}"


def wrong_certificates(stages: dict[str, Any]) -> Iterator[str]:
    for part, numbers in parts_of(stages, "exact").items():
        if numbers.get("certain but wrong"):
            yield f"the certificate is wrong for {numbers['certain but wrong']} of {numbers['rows']} rows: {part}"


def wrong_indices(stages: dict[str, Any]) -> Iterator[str]:
    for part, numbers in parts_of(stages, "exact").items():
        if share := numbers.get("wrong_share", {}).get(EXACT):
            yield f"{share:.2%} of the indices of the exact search are wrong: {part}"


def _sums(stages: dict[str, Any]) -> Parts:
    return {part: numbers for part, numbers in parts_of(stages, "exact").items() if "share_of_bound" in numbers}


def broken_bound(stages: dict[str, Any]) -> Iterator[str]:
    """A score whose error exceeds equation (10), so that the certificate proves nothing."""
    sums = _sums(stages)
    worst = max(sums, key=lambda part: sums[part]["share_of_bound"], default=None)
    if worst is not None and sums[worst]["share_of_bound"] > 1:
        needed = max(numbers["needed"] for numbers in sums.values())
        share, constant = sums[worst]["share_of_bound"], sums[worst]["constant"]
        yield (
            f"the bound (10) does not hold: an error is {share:.2f} times as large ({worst}); "
            f"its constant is {constant}, and {needed:.3g} would cover every error"
        )


def weaker_units(stages: dict[str, Any]) -> Iterator[str]:
    """A matrix unit that keeps fewer bits, or adds fewer products in a step, than the model behind (10)."""
    for part, numbers in parts_of(stages, "exact").items():
        if "kept" not in numbers:
            continue
        for where, bits in numbers["kept"].items():
            if bits is None or (bits != ALL and bits < 0):
                lost = "2^-21" if bits is None else f"2^-{24 + bits}"
                yield f"{part} (accumulator: {where}) loses {lost} beside 1, which the model behind (10) keeps"
        if (step := numbers["step"]) is not None and step < LEAST_STEP:
            yield f"{part} adds {step} products at once, the model behind (10) at least {LEAST_STEP}"


def generous_bound(stages: dict[str, Any]) -> Iterator[str]:
    """A constant of equation (10) that is at least twice as large as all measurements need."""
    sums = _sums(stages)
    needed = max((numbers["needed"] for numbers in sums.values()), default=0.0)
    for constant in {numbers["constant"] for numbers in sums.values()}:
        if needed < constant / 2:
            yield (
                f"the constant of the bound (10) is {constant}, and {needed:.3g} covers every measured error: "
                "a smaller one would leave fewer rows to the exhaustive search"
            )


def tuned_results(stages: dict[str, Any]) -> Iterator[str]:
    """Ways to run a search that change its result in the exact mode."""
    for shape, numbers in of_kind(parts_of(stages, "speed"), TUNE):
        for way, rows in numbers.get("different", {}).items():
            if rows:
                yield f"{rows} rows at {shape} have another result with {way}"


def other_errors(stages: dict[str, Any]) -> Iterator[str]:
    for name in stages:
        if name != "smoke":
            for part, error in _started(stages, name):
                yield f"{name}, {part}, fails: {error}"


def contenders_that_fail(stages: dict[str, Any]) -> Iterator[str]:
    """What this library cannot run; see `rivals_that_fail` for the others."""
    for kind in KINDS:
        for shape, numbers in of_kind(parts_of(stages, "speed"), kind):
            for name, error in numbers.get("failures", {}).items():
                if name not in OF_OTHERS and not error.startswith("not "):  # not run on purpose
                    what = f"{kind}{name} at {shape}" if shape else f"{kind}, {name},"
                    yield f"{what} fails: {brief(error)}"


def left_out(stages: dict[str, Any]) -> Iterator[str]:
    """What was not compared with, since its package is not installed."""
    sentences = [
        sentence for numbers in parts_of(stages, "speed").values() for sentence in numbers.get("left_out", ())
    ]
    yield from (sentence.rstrip(".") for sentence in dict.fromkeys(sentences))


def tests_that_fail(stages: dict[str, Any]) -> Iterator[str]:
    kinds: dict[str, tuple[int, str]] = {}
    for numbers in parts_of(stages, "tests").values():
        for kind in numbers.get("failures", ()):
            times, first = kinds.get(kind["error"], (0, kind["first"]))
            kinds[kind["error"]] = times + kind["times"], first
    for error, (times, first) in sorted(kinds.items(), key=lambda item: -item[1][0]):
        yield f"{times} {'test fails' if times == 1 else 'tests fail'}: {brief(error)} (first {first})"


def waits(stages: dict[str, Any]) -> Iterator[str]:
    for name, numbers in of_kind(parts_of(stages, "speed"), HOST):
        if numbers.get("waits"):
            yield f"{name} waits for the device: {brief(numbers['waits'])}"
        if numbers.get("no_graph"):
            yield f"{name} cannot be captured in a CUDA graph: {brief(numbers['no_graph'])}"


def variants(stages: dict[str, Any]) -> Iterator[str]:
    for _, numbers in of_kind(parts_of(stages, "speed"), HOST):
        for kernel, count in numbers.get("variants", {}).items():
            if count > 1:
                yield f"{kernel} is compiled in {count} variants for eleven batch sizes"


def far_from_the_floor(stages: dict[str, Any]) -> Iterator[str]:
    """Searches below half of their floor, as graphs where there are any, the farthest first."""
    found = []
    for shape, numbers in of_kind(parts_of(stages, "speed"), SEARCH):
        shares = numbers.get("share_of_floor", {})
        for search in SEARCHES:
            name = search.rival.name
            share = shares.get(search.graph.name, shares.get(name))
            if share is not None and share < SHARE:
                slowest = _slowest_kernel(stages, shape, name)
                found.append((share, f"search {name} at {shape} is at {share:.0%} of its floor{slowest}"))
    yield from (sentence for _, sentence in sorted(found))


def _slowest_kernel(stages: dict[str, Any], shape: str, name: str) -> str:
    """Return which kernel takes most of the device's time in a search, as the end of a sentence."""
    part = parts_of(stages, "speed").get(KERNELS + shape, {})
    launched = by_short_name(part.get("launched", {}).get(name, {}))
    if not launched:
        return ""
    kernel, numbers = next(iter(launched.items()))
    return f"; {kernel} takes {numbers['us'] / total_us(launched):.0%} of its kernels' time"


def slower_than_torch(stages: dict[str, Any]) -> Iterator[str]:
    for shape, numbers in of_kind(parts_of(stages, "speed"), SEARCH):
        times = medians(numbers)
        rivals = {rival.name: times[rival.name] for rival in TORCH if rival.name in times}
        for search in SEARCHES:
            name = search.rival.name
            if name in times and rivals and times[name] > min(rivals.values()):
                best = min(rivals, key=lambda rival: rivals[rival])
                yield f"search {name} at {shape} takes {times[name]:.3g} ms, {best} {rivals[best]:.3g} ms"


def slower_than_flash(stages: dict[str, Any]) -> Iterator[str]:
    """Searches whose graph takes longer than that of flash-kmeans with products of the same precision."""
    graphs = {rival.name: graph.name for rival, graph in zip(FLASHES, FLASH_GRAPHS, strict=True)}
    for shape, numbers in of_kind(parts_of(stages, "speed"), SEARCH):
        times = medians(numbers)
        for search in SEARCHES:
            ours, flash = search.graph.name, COUNTERPARTS.get(search.rival.name)
            theirs = graphs.get(flash) if flash else None
            if ours in times and theirs in times and times[ours] > times[theirs]:
                yield f"search {ours} at {shape} takes {times[ours]:.3g} ms, {theirs} {times[theirs]:.3g} ms"


def steps_behind_the_peer(stages: dict[str, Any]) -> Iterator[str]:
    """Training steps that miss their goal beside the peer's, the farthest first, and what takes their time."""
    found: list[tuple[float, str]] = []
    for step in steps(parts_of(stages, "speed")):
        for graph in (False, True):
            ratio = step.ratio(graph)
            if ratio is not None and ratio < TIMES_PEER:
                how, why = ("as a graph", _on_device(stages, step)) if graph else ("eager", _on_host(step))
                name = f"step {step.pair.ours.name}, {how}, at {step.shape}"
                goal = f"{ratio:.2g} times as fast as the peer's, expected {TIMES_PEER:g}"
                found.append((ratio, f"{name} is {goal}{why}"))
    yield from (sentence for _, sentence in sorted(found))


def _on_host(step: StepTimes) -> str:
    """Return how much of an eager step is the host's, as the end of a sentence."""
    if step.ours is None or step.ours_graph is None:
        return ""
    host = max(0.0, step.ours - step.ours_graph)
    return f"; the host takes {host:.3g} of its {step.ours:.3g} ms"


def _on_device(stages: dict[str, Any], step: StepTimes) -> str:
    return f"; the device takes {step.ours_graph:.3g} ms{_slowest_kernel(stages, step.shape, step.pair.ours.name)}"


def limited_by_the_host(stages: dict[str, Any]) -> Iterator[str]:
    for kind, timed in ((SEARCH, [search.rival for search in SEARCHES]), (STEP, STEPS)):
        for shape, numbers in of_kind(parts_of(stages, "speed"), kind):
            times = numbers.get("times_ms", {})
            for rival in timed:
                graph = as_graph(rival).name
                if rival.name in times and graph in times:
                    ratio = times[rival.name]["median"] / times[graph]["median"]
                    if ratio > EAGER:
                        yield f"{kind}{rival.name} at {shape} takes {ratio:.1f} times as long as its CUDA graph"


def rows_left(stages: dict[str, Any]) -> Iterator[str]:
    for part, numbers in parts_of(stages, "exact").items():
        if part.startswith("normal") and numbers.get("left", 0) > LEFT:
            yield f"{numbers['left']:.1%} of the rows are left to the exhaustive search: {part}"


def slow_compiles(stages: dict[str, Any]) -> Iterator[str]:
    slowest: dict[str, float] = {}
    for stage in stages.values():
        for numbers in stage["parts"].values():
            for kernel, counts in numbers.get("kernels", {}).items():
                if counts["compiled"]:
                    each = counts["seconds"] / counts["compiled"]
                    slowest[kernel] = max(slowest.get(kernel, 0.0), each)
    for kernel, seconds in sorted(slowest.items(), key=lambda item: -item[1]):
        if seconds > SLOW_COMPILE:
            yield f"{kernel} takes {seconds:.0f} s to compile"


def rivals_that_fail(stages: dict[str, Any]) -> Iterator[str]:
    """Which other library's search, step or graph could not run, where and why."""
    where: dict[tuple[str, str], list[str]] = {}
    for kind in (SEARCH, PEER, PEER_GRAPH):
        for shape, numbers in of_kind(parts_of(stages, "speed"), kind):
            for name, error in numbers.get("failures", {}).items():
                if name in OF_OTHERS:
                    where.setdefault((name, brief(error)), []).append(shape)
    for (name, reason), shapes in where.items():
        yield f"{name} cannot run at {', '.join(shapes)}: {reason}"


def unfinished(stages: dict[str, Any]) -> Iterator[str]:
    for name, stage in stages.items():
        missing = sum(error.startswith("not started") for error in failures(stage).values())
        if missing:
            yield f"{missing} of {len(stage['parts'])} parts of {name} did not start within {stage['limit']:.0f} s"
        if any(numbers.get("stopped") for numbers in stage["parts"].values()):
            yield f"the tests were stopped after {stage['limit']:.0f} s, before all of them had run"


LOOKS: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (
    kernels_that_fail,
    wrong_certificates,
    broken_bound,
    weaker_units,
    wrong_indices,
    tuned_results,
    other_errors,
    contenders_that_fail,
    tests_that_fail,
    unfinished,
    left_out,
)
# What the interpreter says nothing about: its sums are float32's, and its times are not the device's.
LOOKS_ON_A_DEVICE: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (
    waits,
    variants,
    far_from_the_floor,
    slower_than_torch,
    slower_than_flash,
    steps_behind_the_peer,
    limited_by_the_host,
    rows_left,
    generous_bound,
    slow_compiles,
    rivals_that_fail,
)
