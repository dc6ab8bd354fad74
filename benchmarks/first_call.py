"""How long the first search of a process takes: with a wheel's kernels, with cached ones, and compiling them.

Each is measured in processes of its own, which share nothing but the cache. The CPU seconds are those of the
process and of the compilers that it starts. The first search also loads what PyTorch loads on first use.
"""

import os
import shutil
import statistics
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import record
from benchmarks.python_processes import printed
from benchmarks.sheets import Sheet

STATES = ("prebuilt", "cached", "compiling")
TIMED = """
import json, os, time, torch, quantizers
from quantizers.kernels.nearest.operation import nearest_code
x, codebook = torch.zeros(1, 64, 8), torch.zeros(1, 64, 8)
def cpu_seconds():
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
start, spent = time.perf_counter(), cpu_seconds()
with quantizers.use_implementation("compiled"):
    nearest_code(x, codebook)
print(json.dumps([time.perf_counter() - start, cpu_seconds() - spent]))
"""


def run(wheel: Path, repetitions: int, on_start: Callable[[str], None]) -> dict[str, Any]:
    """Return the medians over processes, in seconds, of the package in a wheel that holds compiled kernels."""
    samples: dict[str, list[list[float]]] = {state: [] for state in STATES}
    with tempfile.TemporaryDirectory() as folder:
        with_kernels, without = Path(folder) / "with", Path(folder) / "without"
        for site in (with_kernels, without):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)
        shutil.rmtree(without / "quantizers/kernels/common/compiled/prebuilt")
        cache = Path(folder) / "cache"
        for _ in range(repetitions):
            shutil.rmtree(cache, ignore_errors=True)
            for state in ("compiling", "cached", "prebuilt"):  # the first fills the cache for the second
                on_start(state)
                samples[state].append(_first_call(with_kernels if state == "prebuilt" else without, cache))
    states = {state: _median(rows) for state, rows in samples.items()}
    sizes = {"wheel": wheel.name, "wheel_bytes": wheel.stat().st_size}
    return {**record(torch.device("cpu")), **sizes, "repetitions": repetitions, "states": states}


def _median(rows: list[list[float]]) -> dict[str, float]:
    wall, cpu = zip(*rows, strict=True)
    return {"wall_seconds": statistics.median(wall), "cpu_seconds": statistics.median(cpu)}


def sheet(result: dict[str, Any]) -> Sheet:
    """Return the table of a result of `run`."""
    rows = [
        [state, f"{row['cpu_seconds']:.3f}", f"{row['wall_seconds']:.3f}"]
        for state, row in result["states"].items()
    ]
    title = f"First search of a process, medians of {result['repetitions']} processes"
    return Sheet(title, ["compiled kernels", "CPU seconds", "seconds"], rows)


def _first_call(site: Path, cache: Path) -> list[float]:
    environment = {**os.environ, "PYTHONPATH": str(site), "QUANTIZERS_CACHE": str(cache)}
    environment.pop("CXX", None)
    seconds: list[float] = printed(TIMED, environment, site)
    return seconds
