"""Starts a process for each run, and judges its codes here, so that all contenders are judged alike."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import ROOT
from benchmarks.offline.contenders import Contender
from benchmarks.offline.tasks import Task
from quantizers.kernels.nearest.operation import nearest_code

CHILD = "benchmarks.offline.child"
LONGEST_MESSAGE = 300  # characters of an error
BLOCK = 16384  # vectors that are judged at once
# What limits the threads of OpenMP, OpenBLAS and MKL.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measured(contender: Contender, task: Task, limit_s: float) -> dict[str, Any]:
    """Run the contender in a process of its own, for at most `limit_s` seconds.

    Returns the numbers of child.py, with the inertia of all vectors, or the "error" that ended the run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "task.pickle").write_bytes(pickle.dumps(task))
        if error := _run(contender, folder, task.threads, limit_s):
            return {"error": error}
        numbers: dict[str, Any] = json.loads((folder / "result.json").read_text())
        if numbers["inertia"] is None:
            numbers["inertia"] = inertia(np.load(task.path, mmap_mode="r"), np.load(folder / "codes.npy"))
        return numbers


def inertia(x: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean over vectors [N, D] of the squared distance to the nearest of codes [K, D].

    Differences, squares and sums are float64; only the choice of the nearest code is rounded as in float32.
    """
    table = torch.from_numpy(codes)
    total = 0.0
    for start in range(0, len(x), BLOCK):
        block = torch.from_numpy(np.array(x[start : start + BLOCK]))
        indices, _ = nearest_code(block[None], table[None])
        total += float((block.double() - table[indices[0]].double()).square().sum())
    return total / len(x)


def _run(contender: Contender, folder: Path, threads: int, limit_s: float) -> str:
    """Return why the process failed; empty if it did not."""
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, "-m", CHILD, contender.name, str(folder)]
    with (folder / "log").open("w") as log:
        try:
            done = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, env=environment, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s"
    if done.returncode:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines() or [""]
        return f"its process ended with code {done.returncode}: {lines[-1][:LONGEST_MESSAGE]}"
    return ""
