"""The study's trainings, several processes at a time, each stored as it finishes.

Small models keep one core busy and no more: two processes of one thread train twice as much as one of two.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path

import torch

from benchmarks import stored_results
from benchmarks.data import Photographs, bundled, from_folder
from benchmarks.stored_results import StoredResult
from benchmarks.study.effects import Effect
from benchmarks.study.measure import measure
from benchmarks.sweep.grid import Point
from benchmarks.sweep.run import NO_MEMORY, folder_name
from benchmarks.training import Recipe
from benchmarks.utilization import first_line

HERE = Path(__file__).parent

Tell = Callable[[Point, StoredResult, bool], None]  # a point is there, and whether it was trained just now


@dataclass
class Results:
    """What a study has: the parts that are finished, by their points; the rest with its reasons."""

    finished: dict[Point, StoredResult] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Those that were not reached, or failed."""
        return [point for point in points if point not in self.finished]


@dataclass(frozen=True)
class Task:
    """What a process needs to train one point; the photographs it reads itself, once."""

    point: Point
    images: Path | None
    folder: Path
    key: str


def points(effects: Sequence[Effect], base: Recipe, seeds: Sequence[int]) -> list[Point]:
    """Each training once; a seed after the other, so that a part of a study has all effects in fewer seeds."""
    settings = dict.fromkeys(setting for effect in effects for setting in effect.settings())
    return [
        Point(s.quantizer, replace(base, codebook_size=s.codebook_size, dim=s.dim, seed=seed))
        for seed in seeds
        for s in settings
    ]


def run(
    points: Sequence[Point],
    images: Path | None,
    folder: Path,
    *,
    workers: int,
    fresh: bool = False,
    tell: Tell,
) -> Results:
    """Train what `folder` has no result of, or all if `fresh`, by `workers` processes.

    Ctrl-C ends early, and so does a process that dies: what is finished is returned. A training that does not fit
    in memory is left aside.
    """
    photographs = read(images)
    deciding = source_digest()
    results = Results()
    tasks: list[Task] = []
    for point in points:
        here = folder / folder_name(point.recipe)
        key = stored_results.fingerprint(point.name, point.recipe, photographs, deciding)
        stored = None if fresh else stored_results.load(here, point.name, key)
        if stored is None:
            tasks.append(Task(point, images, here, key))
        else:
            results.finished[point] = stored
            tell(point, stored, False)
    try:
        with processes(workers) as pool:
            for task, future in _finished(pool, tasks):
                _take(results, task, future, tell)
    except KeyboardInterrupt:
        results.interrupted = True
    except BrokenProcessPool:
        results.failed.append("A process of the study died, perhaps for lack of memory; fewer --workers need less")
    return results


def source_digest() -> str:
    """Of the library, the benchmark's deciding files and the study's own."""
    benchmark = [HERE.parent / f"{module}.py" for module in stored_results.DECIDING]
    return stored_results.source_digest([*benchmark, HERE / "measure.py"])


@lru_cache(maxsize=1)
def read(images: Path | None) -> Photographs:
    """The photographs, once a process."""
    return bundled() if images is None else from_folder(images)


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """So many that train. On the way out by an error nothing more is begun, and what was begun ends at once."""
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in whatever state they are
    pool = ProcessPoolExecutor(workers, context, initializer=begin, initargs=(torch.get_num_threads(),))
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def begin(threads: int) -> None:
    """In each process, first: Ctrl-C ends it at once, in silence, and so does the end of the one that began it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def train_and_store(task: Task) -> StoredResult:
    """In one of the processes."""
    result = measure(task.point.name, task.point.recipe, read(task.images), lambda step, mse, codes_used: None)
    task.folder.mkdir(parents=True, exist_ok=True)
    stored_results.save(task.folder, task.key, result)
    return result


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _finished(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterator[tuple[Task, "Future[StoredResult]"]]:
    futures = {pool.submit(train_and_store, task): task for task in tasks}
    for future in as_completed(futures):
        yield futures[future], future


def _take(results: Results, task: Task, future: "Future[StoredResult]", tell: Tell) -> None:
    try:
        result = future.result()
    except NO_MEMORY as error:
        results.failed.append(f"{task.point}: {first_line(error)}")
        return
    results.finished[task.point] = result
    tell(task.point, result, True)
