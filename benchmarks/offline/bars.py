"""The project's requirements on codebooks that are fitted offline, each judged by its worst cell."""

from collections.abc import Iterator, Sequence

from benchmarks.kernels.requirements import Bar, bar
from benchmarks.offline.cells import KMEANS, PRODUCT, RESIDUAL, STREAM, Cell
from benchmarks.offline.contenders import CONTENDERS
from benchmarks.offline.stored import Run
from benchmarks.offline.summary import SAME, Line, best_rival, reach

STREAM_LIMIT = 2 * 2**30  # bytes

REACHES = {
    KMEANS: "k-means, as called",
    RESIDUAL: "residual k-means, as called",
    PRODUCT: "product codes, as called",
    STREAM: "k-means from a file, as called",
}


def judge(found: Sequence[Line], runs: Sequence[Run]) -> list[Bar]:
    """Check all requirements that some cell can decide."""
    kinds = [kind for kind in REACHES if any(line.cell.kind == kind for line in found)]
    seeded = [_per_pass(found), _same_inertia(found)] if KMEANS in kinds else []
    return [
        *seeded,
        *(_reaches(found, kind) for kind in kinds),
        *([_memory(found)] if STREAM in kinds else []),
        _runs(runs),
    ]


def _reaches(found: Sequence[Line], kind: str) -> Bar:
    leads = [
        (reached.lead, f"{cell}, {rival.contender.name}")
        for cell in _cells(found)
        if cell.kind == kind and (rival := best_rival(found, cell)) and (reached := reach(found, rival))
    ]
    requirement = f"{REACHES[kind]}: reaches the least inertia of the others in no more than their time"
    return bar(requirement, min(leads, default=None), "x", lambda value: value >= 1)


def _per_pass(found: Sequence[Line]) -> Bar:
    leads = [
        (min(other.seconds / other.passes for other in others) / (ours.seconds / ours.passes), str(ours.cell))
        for ours, others in _seeded(found)
        if ours.passes and all(other.passes for other in others)
    ]
    requirement = "k-means, same seeds: a pass over all vectors takes no longer than the fastest of the others"
    return bar(requirement, min(leads, default=None), "x", lambda value: value >= 1)


def _same_inertia(found: Sequence[Line]) -> Bar:
    differences = [
        (abs(other.inertia / ours.inertia - 1), f"{ours.cell}, {other.contender.name}")
        for ours, others in _seeded(found)
        for other in others
    ]
    requirement = f"k-means, same seeds: the inertias differ by at most {SAME:g}"
    return bar(requirement, max(differences, default=None), "", lambda value: value <= SAME)


def _seeded(found: Sequence[Line]) -> Iterator[tuple[Line, list[Line]]]:
    """Ours and all others that start at the same seeds, on each cell that has both."""
    for cell in _cells(found):
        lines = [line for line in found if line.cell == cell and line.contender.from_seeds]
        ours = [line for line in lines if line.contender.ours]
        others = [line for line in lines if not line.contender.ours]
        if ours and others:
            yield ours[0], others


def _memory(found: Sequence[Line]) -> Bar:
    shares = [
        (line.peak_bytes / 2**30, str(line.cell))
        for line in found
        if line.cell.kind == STREAM and line.contender.ours and line.peak_bytes is not None
    ]
    requirement = f"k-means from a file: takes less than {STREAM_LIMIT // 2**30} GiB"
    return bar(requirement, max(shares, default=None), "GiB", lambda value: value < STREAM_LIMIT / 2**30)


def _runs(runs: Sequence[Run]) -> Bar:
    """Require that no run of this library failed. The other requirements see only what was measured."""
    ours = {contender.name for contender in CONTENDERS if contender.ours}
    failed = [f"{run.cell}, {run.contender}" for run in runs if run.contender in ours and run.error]
    worst = (float(len(failed)), failed[0] if failed else "everywhere") if runs else None
    return bar("this library runs on every cell", worst, "failures", lambda value: value == 0)


def _cells(found: Sequence[Line]) -> list[Cell]:
    return list(dict.fromkeys(line.cell for line in found))
