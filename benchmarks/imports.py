"""How long `import quantizers` takes, beside `import torch` and the main peer, each in processes of its own.

Bytecode is compiled beforehand, as pip does when it installs a package. Programs alternate, so that a busy moment
of the machine meets all of them.
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import record
from benchmarks.python_processes import printed
from benchmarks.sheets import Sheet

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("torch", "quantizers", "vector_quantize_pytorch")
TIMED = """
import json, sys, time
start = time.process_time()
import torch, {module}
seconds = time.process_time() - start
print(json.dumps([seconds, len(sys.modules)]))
"""


def run(repetitions: int, on_start: Callable[[str], None]) -> dict[str, Any]:
    """Return the medians over processes: CPU seconds and modules of each program, and the seconds over torch's."""
    samples: dict[str, list[tuple[float, int]]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as bytecode:
        for name in PROGRAMS:
            _imported(name, bytecode)
        for _ in range(repetitions):
            for name in PROGRAMS:
                on_start(name)
                samples[name].append(_imported(name, bytecode))
    rows = {name: _median(found) for name, found in samples.items()}
    for row in rows.values():
        row["seconds_over_torch"] = row["cpu_seconds"] / rows["torch"]["cpu_seconds"]
        row["modules_beside_torch"] = row["modules"] - rows["torch"]["modules"]
    return {**record(torch.device("cpu")), "repetitions": repetitions, "programs": rows}


def sheet(result: dict[str, Any]) -> Sheet:
    """Return the table of a result of `run`."""
    rows = [
        [
            "import torch" if name == "torch" else f"import torch, {name}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['seconds_over_torch']:.2f}",
            f"{row['modules_beside_torch']:.0f}",
        ]
        for name, row in result["programs"].items()
    ]
    title = f"Imports, medians of {result['repetitions']} processes"
    return Sheet(title, ["program", "CPU seconds", "over torch's", "modules beside torch's"], rows)


def _imported(name: str, bytecode: str) -> tuple[float, int]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds, modules = printed(TIMED.format(module=name), environment)
    return seconds, modules


def _median(samples: list[tuple[float, int]]) -> dict[str, float]:
    seconds, modules = zip(*samples, strict=True)
    return {"cpu_seconds": statistics.median(seconds), "modules": statistics.median(modules)}
