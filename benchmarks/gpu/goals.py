"""The goals of the kernels on a GPU as one table, and what a report says of each: met, missed or not measured.

A goal names the places where it is to be measured: shapes, data sets or tests. It is met if the number of every
place passes, and missed if that of one does not. It is not measured if no number fails and some are missing,
except where a rival cannot run at all (for want of memory), which is no fault of a run.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.contenders import SEARCHES, Search
from benchmarks.gpu.exact import EXACT, LARGE, SETS
from benchmarks.gpu.flash import COUNTERPARTS
from benchmarks.gpu.graphs import named_graph
from benchmarks.gpu.others import BENCH
from benchmarks.gpu.smoke import CASES
from benchmarks.gpu.speed import SEARCH, SHAPES
from benchmarks.gpu.times import StepTimes, medians, of_kind, parts_of, searches, steps
from benchmarks.kernels.rivals import CDIST
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.steps import PAIRS, Pair

LARGE_SHAPE, WIDEST_SHAPE = Shape(262144, 16384, 256), Shape(262144, 262144, 32)
SHARE_OF_FLOOR, TIMES_CDIST, TIMES_PEER = 0.5, 5.0, 5.0
# With fewer pairs of vector and code, cdist + argmin is bound by its launches: 2²³ took it 0.36 ms on an H200,
# whose memory could bring six matrices of that size in 0.04.
LAUNCHED = 2**25
EXACT_SEARCH, _, BF16_SEARCH = SEARCHES
COMPARISONS = {"≥": operator.ge, ">": operator.gt, "≤": operator.le}
MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass
class Measured:
    """A goal's numbers by place; places without a number; places where a rival cannot run, with the reason."""

    numbers: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    excused: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, number: float | None, excuse: str = "") -> None:
        if number is not None:
            self.numbers[where] = number
        elif excuse:
            self.excused[where] = excuse
        else:
            self.missing.append(where)


@dataclass(frozen=True)
class Goal:
    """A requirement on numbers.

    name     of the numbers
    sign     how each of them must compare with the limit: a key of COMPARISONS
    measure  stages of a report → the numbers
    """

    name: str
    sign: str
    limit: float
    measure: Callable[[dict[str, Any]], Measured]

    @property
    def required(self) -> str:
        return f"{self.sign} {self.limit:g}"

    def passes(self, number: float) -> bool:
        return COMPARISONS[self.sign](number, self.limit)

    def worst(self, numbers: dict[str, float]) -> str:
        """Return the place of the number that is farthest on the wrong side; the first of equal ones."""
        return (max if self.sign == "≤" else min)(numbers, key=lambda where: numbers[where])


@dataclass(frozen=True)
class Verdict:
    """What a report says of a goal: the verdict, the worst number and its place, and what has none."""

    goal: Goal
    verdict: str
    number: float | None
    where: str
    measured: Measured


def judge(goal: Goal, stages: dict[str, Any]) -> Verdict:
    measured = goal.measure(stages)
    where = goal.worst(measured.numbers) if measured.numbers else ""
    number = measured.numbers.get(where)
    if number is not None and not goal.passes(number):
        verdict = MISSED
    elif number is None or measured.missing:
        verdict = NOT_MEASURED
    else:
        verdict = MET
    return Verdict(goal, verdict, number, where, measured)


def verdicts(record: dict[str, Any]) -> list[Verdict]:
    return [judge(goal, record["stages"]) for goal in GOALS]


def _wrong(stages: dict[str, Any]) -> Measured:
    """Shares of wrong indices, and rows that the certificate called certain although they were wrong."""
    measured, parts = Measured(), parts_of(stages, "exact")
    found = {part: numbers for part, numbers in parts.items() if "wrong_share" in numbers}
    for part in dict.fromkeys((*SETS, *LARGE, *found)):
        numbers = found.get(part, {})
        share = numbers.get("wrong_share", {}).get(EXACT)
        certain = numbers.get("certain but wrong", 0) / numbers.get("rows", 1)
        measured.add(part, None if share is None else max(share, certain))
    return measured


def _wrong_kernels(stages: dict[str, Any]) -> Measured:
    """1 for every operation whose result is wrong or that cannot run."""
    measured, parts = Measured(), parts_of(stages, "smoke")
    for part in dict.fromkeys((*CASES, *parts)):
        error = parts.get(part, {"error": "not started"}).get("error", "")
        measured.add(part, None if error.startswith(("not started", "stopped")) else float(bool(error)))
    return measured


def _failed_tests(stages: dict[str, Any]) -> Measured:
    """How many tests failed, and the shares of the tests that did not end."""
    measured, parts = Measured(), parts_of(stages, "tests")
    measured.missing += [
        part for part, numbers in parts.items() if numbers.get("stopped", "failed" not in numbers)
    ]
    counted = [numbers["failed"] for numbers in parts.values() if "failed" in numbers]
    measured.add("tests", float(sum(counted)) if counted else None)
    return measured


def _share_of_floor(search: Search) -> Callable[[dict[str, Any]], Measured]:
    def measure(stages: dict[str, Any]) -> Measured:
        measured, shares = Measured(), dict(of_kind(parts_of(stages, "speed"), SEARCH))
        numbers = shares.get(str(LARGE_SHAPE), {}).get("share_of_floor", {})
        measured.add(str(LARGE_SHAPE), numbers.get(search.graph.name, numbers.get(search.rival.name)))
        return measured

    return measure


def _runs(stages: dict[str, Any]) -> Measured:
    """1 where the exact search of the largest shape ran, 0 where it failed."""
    measured, where = Measured(), str(WIDEST_SHAPE)
    numbers = parts_of(stages, "speed").get(SEARCH + where, {})
    name = EXACT_SEARCH.rival.name
    ran, failed = name in medians(numbers), name in numbers.get("failures", {})
    measured.add(where, 1.0 if ran else 0.0 if failed else None)
    return measured


def _bench(stages: dict[str, Any]) -> Measured:
    """1 if `make bench` came to its table on the device, 0 if it failed; no number without its packages."""
    measured, numbers = Measured(), parts_of(stages, "speed").get(BENCH, {"left_out": []})
    error = numbers.get("error", "")
    if error.startswith(("not started", "stopped")) or "left_out" in numbers:
        measured.missing.append(BENCH)
    else:
        measured.add(BENCH, 0.0 if error else 1.0)
    return measured


def _over_cdist(graph: bool) -> Callable[[dict[str, Any]], Measured]:
    name = EXACT_SEARCH.graph.name if graph else EXACT_SEARCH.rival.name

    def measure(stages: dict[str, Any]) -> Measured:
        measured, times, reasons = Measured(), searches(parts_of(stages, "speed")), _reasons(stages)
        for shape in SHAPES:
            if shape.n * shape.k >= LAUNCHED:
                number = _ratio(times.get(str(shape), {}), CDIST, name)
                measured.add(str(shape), number, reasons.get(str(shape), {}).get(CDIST, ""))
        return measured

    return measure


def _over_flash(graph: bool) -> Callable[[dict[str, Any]], Measured]:
    def measure(stages: dict[str, Any]) -> Measured:
        measured, times, reasons = Measured(), searches(parts_of(stages, "speed")), _reasons(stages)
        for shape in SHAPES:
            for ours, flash in COUNTERPARTS.items():
                names = (named_graph(flash), named_graph(ours)) if graph else (flash, ours)
                number = _ratio(times.get(str(shape), {}), *names)
                measured.add(f"{shape} {ours}", number, reasons.get(str(shape), {}).get(names[0], ""))
        return measured

    return measure


def _over_peer(pair: Pair, graph: bool) -> Callable[[dict[str, Any]], Measured]:
    def measure(stages: dict[str, Any]) -> Measured:
        measured = Measured()
        found = {step.shape: step for step in steps(parts_of(stages, "speed")) if step.pair is pair}
        for shape in SHAPES:
            step: StepTimes | None = found.get(str(shape))
            number, reason = (step.ratio(graph), step.reason(graph)) if step else (None, "")
            if shape.n * shape.k > pair.ours.pairs:
                reason = f"not run on more than {pair.ours.pairs:.0f} pairs of vector and code"
            measured.add(str(shape), number, reason)
        return measured

    return measure


def _reasons(stages: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return why searches have no time, by shape and name."""
    return {shape: numbers.get("failures", {}) for shape, numbers in of_kind(parts_of(stages, "speed"), SEARCH)}


def _ratio(times: dict[str, float], rival: str, ours: str) -> float | None:
    return times[rival] / times[ours] if rival in times and ours in times else None


def _goals() -> Iterable[Goal]:
    yield Goal("operations that fail", "≤", 0.0, _wrong_kernels)
    yield Goal("exact: share of wrong indices", "≤", 0.0, _wrong)
    yield Goal("tests that fail", "≤", 0.0, _failed_tests)
    for search, name in ((EXACT_SEARCH, "exact"), (BF16_SEARCH, "medium")):
        text = f"{name}: share of the {search.floor} floor"
        yield Goal(text, "≥", SHARE_OF_FLOOR, _share_of_floor(search))
    yield Goal("exact: runs at the widest shape", "≥", 1.0, _runs)
    yield Goal("make bench: comes to its table", "≥", 1.0, _bench)
    for how, graph in (("graph", True), ("eager", False)):
        yield Goal(f"high and medium, {how}: times as fast as flash-kmeans", ">", 1.0, _over_flash(graph))
    for how, graph in (("graph", True), ("eager", False)):
        yield Goal(f"exact, {how}: times as fast as {CDIST}", "≥", TIMES_CDIST, _over_cdist(graph))
    for pair in PAIRS:
        for how, graph in (("graph", True), ("eager", False)):
            text = f"step of {pair.ours.name}, {how}: times as fast as the peer's"
            yield Goal(text, "≥", TIMES_PEER, _over_peer(pair, graph))


GOALS = tuple(_goals())
