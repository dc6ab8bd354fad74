"""What a report says of searches and training steps, by shape: medians, and reasons where there are none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.graphs import named_graph
from benchmarks.gpu.speed import PEER, PEER_GRAPH, SEARCH, STEP
from benchmarks.kernels.steps import PAIRS, Pair

Parts = dict[str, dict[str, Any]]


def parts_of(stages: dict[str, Any], name: str) -> Parts:
    """Return the parts of a stage; none if it did not run."""
    parts: Parts = stages.get(name, {"parts": {}})["parts"]
    return parts


def of_kind(parts: Parts, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what follows `kind` in the names of its parts, and their numbers."""
    for part, numbers in parts.items():
        if part.startswith(kind):
            yield part.removeprefix(kind), numbers


def medians(numbers: dict[str, Any]) -> dict[str, float]:
    """Return the milliseconds of each contender of a part."""
    return {name: times["median"] for name, times in numbers.get("times_ms", {}).items()}


def searches(parts: Parts) -> dict[str, dict[str, float]]:
    """Return the medians of all searches, by shape."""
    return {shape: medians(numbers) for shape, numbers in of_kind(parts, SEARCH)}


@dataclass(frozen=True)
class StepTimes:
    """Milliseconds of one method's training step; None where it was not measured.

    shape, pair  what was measured
    reasons      why a time of the peer's is missing, by the name of the contender
    """

    shape: str
    pair: Pair
    ours: float | None
    ours_graph: float | None
    peer: float | None
    peer_graph: float | None
    reasons: dict[str, str]

    def ratio(self, graph: bool) -> float | None:
        """Return how many times as fast ours is: as graphs, or launched by the host."""
        ours, peer = (self.ours_graph, self.peer_graph) if graph else (self.ours, self.peer)
        return peer / ours if ours and peer else None

    def reason(self, graph: bool) -> str:
        """Return why there is no time of the peer's, or an empty string."""
        peer = self.pair.peer.name
        return self.reasons.get(named_graph(peer) if graph else peer, "")


def steps(parts: Parts) -> list[StepTimes]:
    """Return the times of every method at every shape at which some contender was measured."""
    shapes: dict[str, dict[str, float]] = {}
    reasons: dict[str, dict[str, str]] = {}
    for kind in (STEP, PEER, PEER_GRAPH):
        for shape, numbers in of_kind(parts, kind):
            shapes.setdefault(shape, {}).update(medians(numbers))
            reasons.setdefault(shape, {}).update(numbers.get("failures", {}))
    found = [_step(shape, pair, times, reasons[shape]) for shape, times in shapes.items() for pair in PAIRS]
    return [each for each in found if any((each.ours, each.ours_graph, each.peer, each.peer_graph))]


def _step(shape: str, pair: Pair, times: dict[str, float], reasons: dict[str, str]) -> StepTimes:
    ours, peer = pair.ours.name, pair.peer.name
    return StepTimes(
        shape,
        pair,
        ours=times.get(ours),
        ours_graph=times.get(named_graph(ours)),
        peer=times.get(peer),
        peer_graph=times.get(named_graph(peer)),
        reasons=reasons,
    )
