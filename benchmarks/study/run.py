"""The study's trainings: several processes at a time, each result stored as soon as it is finished.

A small model keeps only one core busy. Two processes with one thread each train twice as fast as one with two.
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

OnPoint = Callable[[Point, StoredResult, bool], None]  # point, result, and whether it was trained just now


@dataclass
class Results:
    """The results of a study: finished ones by point, and the reasons for failures."""

    finished: dict[Point, StoredResult] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Return the points that were not reached or that failed."""
        return [point for point in points if point not in self.finished]


@dataclass(frozen=True)
class Task:
    """The input of a process that trains one point. The process reads the photographs itself, once."""

    point: Point
    images: Path | None
    folder: Path
    key: str


def points(effects: Sequence[Effect], base: Recipe, seeds: Sequence[int]) -> list[Point]:
    """Return each training once. Seeds come one after the other, so that a partial study has all effects in fewer
    seeds.
    """
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
    on_point: OnPoint,
) -> Results:
    """Train the points without a stored result in `folder` (all if `fresh`) with `workers` processes.

    Ctrl-C or a process that dies ends the run early; the finished results are returned. A training that does not
    fit in memory is skipped and reported.
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
            on_point(point, stored, False)
    try:
        with processes(workers) as pool:
            for task, future in _finished(pool, tasks):
                _take(results, task, future, on_point)
    except KeyboardInterrupt:
        results.interrupted = True
    except BrokenProcessPool:
        results.failed.append(
            "A process of the study died, perhaps for lack of memory. Fewer --workers need less memory."
        )
    return results


def source_digest() -> str:
    """Return a digest of the library, the benchmark's deciding files, and the study's own."""
    benchmark = [HERE.parent / f"{module}.py" for module in stored_results.DECIDING]
    return stored_results.source_digest([*benchmark, HERE / "measure.py"])


@lru_cache(maxsize=1)
def read(images: Path | None) -> Photographs:
    """Read the photographs, once per process."""
    return bundled() if images is None else from_folder(images)


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start `workers` training processes. After an error, start nothing more and terminate the running ones at
    once.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an arbitrary state
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
    """Initialize a process: Ctrl-C, or the end of the parent process, ends it at once and silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def train_and_store(task: Task) -> StoredResult:
    """Train one point in a worker process."""
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


def _take(results: Results, task: Task, future: "Future[StoredResult]", on_point: OnPoint) -> None:
    try:
        result = future.result()
    except NO_MEMORY as error:
        results.failed.append(f"{task.point}: {first_line(error)}")
        return
    results.finished[task.point] = result
    on_point(task.point, result, True)
