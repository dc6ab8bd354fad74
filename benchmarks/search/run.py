"""All measurements, one after the other, each stored as soon as it is finished."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from benchmarks.search import caching, items, measures, of_faiss, ours
from benchmarks.search.coders import FAISS, OURS, Method, Task, has_faiss
from benchmarks.search.data import Split, draw, vectors
from benchmarks.search.neighbours import nearest
from benchmarks.search.parts import Parts
from benchmarks.search.settings import Caching, Chosen, Items, Settings

Rows = list[dict[str, Any]]


@dataclass
class Results:
    """Rows of numbers, and what a run lacks.

    search    compressed search: a row for each kind, seed, number of codebooks and coder
    items     semantic IDs: a row for each number of items, shape, seed and policy
    caching   keys and values of a transformer: a row for each way to compress them
    left_out  a sentence for each library that is not installed
    """

    search: Rows = field(default_factory=list)
    items: Rows = field(default_factory=list)
    caching: Rows = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False


class Drawn:
    """The vectors of one kind and seed, and the true neighbours, computed when a measurement first needs them."""

    def __init__(self, kind: str, settings: Settings, seed: int) -> None:
        self.kind, self.settings, self.seed = kind, settings, seed

    @cached_property
    def split(self) -> Split:
        return draw(self.kind, self.settings, self.seed)

    @cached_property
    def truth(self) -> Tensor:
        """The position of each query's nearest base vector, int64 [Q]."""
        return nearest(self.split.queries, self.split.base, 1)[:, 0]


@dataclass(frozen=True)
class Work:
    """One measurement: a name for the progress bar, what determines it, and what computes its rows."""

    name: str
    labels: dict[str, Any]
    decides: dict[str, Any]
    measure: Callable[[], Rows]


def methods() -> list[Method]:
    """Return the methods of the installed libraries."""
    return [*ours.METHODS, *(of_faiss.METHODS if has_faiss() else ())]


def search_work(settings: Settings, compared: Sequence[Method]) -> Iterator[Work]:
    """List the measurements of compressed search."""
    for kind in settings.kinds:
        for seed in settings.seeds:
            drawn = Drawn(kind, settings, seed)
            for codebooks in settings.codebooks:
                for method in compared:
                    if not method.slow or (codebooks in settings.slow_codebooks and seed == settings.seeds[0]):
                        yield _search(drawn, codebooks, method)


def item_work(settings: Items) -> Iterator[Work]:
    """List the measurements of semantic IDs."""
    for count in settings.counts:
        for seed in settings.seeds:
            for levels, size in settings.shapes:
                for library in (OURS, FAISS) if has_faiss() else (OURS,):
                    yield _items(settings, count, seed, levels, size, library)


def cache_work(settings: Caching) -> Iterator[Work]:
    """List the one measurement of keys and values, unless it is left out."""
    if settings.steps:
        yield Work("keys and values of a transformer", {}, asdict(settings), lambda: caching.rows(settings))


def run(chosen: Chosen, parts: Parts, started: Callable[[str], None]) -> Results:
    """Measure, calling `started` with the name of each measurement.

    Ctrl-C ends early and keeps what is finished.
    """
    results = Results()
    if not has_faiss():
        results.left_out.append("faiss is left out: the package faiss-cpu is not installed.")
    try:
        for rows, listed in (
            (results.search, search_work(chosen.search, methods())),
            (results.items, item_work(chosen.items)),
            (results.caching, cache_work(chosen.caching)),
        ):
            for work in listed:
                started(work.name)
                measured = parts.get({**work.decides, **work.labels}, work.measure)
                rows += [{**work.labels, **row} for row in measured]
    except KeyboardInterrupt:
        results.interrupted = True
    return results


def count(chosen: Chosen) -> int:
    """Return the number of measurements."""
    lists = search_work(chosen.search, methods()), item_work(chosen.items), cache_work(chosen.caching)
    return sum(len([*each]) for each in lists)


def _search(drawn: Drawn, codebooks: int, method: Method) -> Work:
    settings, seed = drawn.settings, drawn.seed

    def measure() -> Rows:
        task = Task(drawn.split.train, codebooks, seed, settings)
        return measures.rows(method, task, drawn.split, drawn.truth)

    labels = {
        "kind": drawn.kind,
        "seed": seed,
        "codebooks": codebooks,
        "bits": codebooks * settings.bits_per_code,
    }
    sizes = {key: value for key, value in asdict(settings).items() if key not in ("kinds", "seeds", "codebooks")}
    decides = {"method": [method.library, method.name], **sizes}
    name = f"{drawn.kind}, seed {seed}, {labels['bits']} bits: {method.library} {method.name}"
    return Work(name, labels, decides, measure)


def _items(settings: Items, count: int, seed: int, levels: int, size: int, library: str) -> Work:
    def measure() -> Rows:
        drawn = vectors(settings.kind, count, settings.dim, seed)
        return items.BY_LIBRARY[library](items.ItemTask(drawn, levels, size, seed, settings.probes))

    labels = {"items": count, "levels": levels, "codebook_size": size, "seed": seed}
    decides = {"kind": settings.kind, "dim": settings.dim, "probes": settings.probes, "library": library}
    name = f"{count} items, seed {seed}, {levels} levels of {size} codes: {library}"
    return Work(name, labels, decides, measure)
