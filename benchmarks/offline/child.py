"""The process of one run: `python -m benchmarks.offline.child folder`, started by processes.py.

The folder contains a Task as task.pickle. The process writes result.json, and codes.npy if there are codes, to it.
Only the contender's own library is imported before it runs, so that no other one's threads or memory interfere.
"""

import argparse
import json
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import residency
from benchmarks.offline.cells import STREAM
from benchmarks.offline.contenders import BY_NAME
from benchmarks.offline.tasks import Fit, Fitted, Task

WARM_UP = 2048  # vectors of a first run, which loads libraries, compiles, and starts threads
DECODED = 16384  # vectors at once


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=BY_NAME)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    task = pickle.loads((arguments.folder / "task.pickle").read_bytes())
    result = measure(BY_NAME[arguments.contender].load(), task, arguments.folder)
    (arguments.folder / "result.json").write_text(json.dumps(result))


def measure(fit: Fit, task: Task, folder: Path) -> dict[str, Any]:
    """Return seconds and peak memory of a fit, after a brief one, and what is known of its result."""
    x = np.load(task.path, mmap_mode="r" if task.cell.kind == STREAM else None)
    _warm_up(fit, x, task, folder)
    measurable = residency.is_measurable()
    before = residency.reset() if measurable else 0
    begin = time.perf_counter()
    fitted = fit(x, task)
    seconds = time.perf_counter() - begin
    peak = residency.high_water_mark() - before if measurable else None
    if fitted.codes is not None:
        np.save(folder / "codes.npy", np.ascontiguousarray(fitted.codes, dtype=np.float32))
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "passes": fitted.passes,
        "inertias": fitted.inertias,
        "instructions": fitted.instructions,
        "inertia": None if fitted.reconstruct is None else distortion(x, fitted),
    }


def distortion(x: np.ndarray, fitted: Fitted) -> float:
    """Return the mean over vectors of the squared distance from what their indices decode to, in float64."""
    assert fitted.reconstruct is not None
    total = 0.0
    for start in range(0, len(x), DECODED):
        block = np.ascontiguousarray(x[start : start + DECODED])
        total += float(np.square(np.subtract(block, fitted.reconstruct(block), dtype=np.float64)).sum())
    return total / len(x)


def _warm_up(fit: Fit, x: np.ndarray, task: Task, folder: Path) -> None:
    """Fit a few codes to a few vectors, of the same number of channels."""
    few = np.ascontiguousarray(x[:WARM_UP])
    k = min(16, task.cell.k)
    path = folder / "few.npy"
    np.save(path, few)
    seeds = None if task.seeds is None else task.seeds[:k]
    mapped = np.load(path, mmap_mode="r") if task.cell.kind == STREAM else few
    fit(
        mapped,
        replace(task, cell=replace(task.cell, n=len(few), k=k), path=str(path), iterations=1, seeds=seeds),
    )


if __name__ == "__main__":
    main()
