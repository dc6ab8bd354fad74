"""The machine and the software versions behind a measurement.

Imports torch and numpy only where it asks them: the command `versions` runs without either.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent


def machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores available to this process, torch's threads, platform, and the accelerator if one is
    used.
    """
    import torch

    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    import numpy as np
    import torch

    import quantizers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "quantizers": quantizers.__version__,
    }


def revision(folder: Path = ROOT) -> dict[str, Any] | None:
    """Return the git commit of `folder` and whether its tree has changes; None outside git or before a first
    commit.
    """
    commit = _output_of("git", "-C", str(folder), "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": _output_of("git", "-C", str(folder), "status", "--porcelain") != ""}


def date() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def record(device: torch.device) -> dict[str, Any]:
    """Return all of the above, in the form that every benchmark's JSON contains."""
    return {"machine": machine(device), "versions": versions(), "revision": revision(), "date": date()}


def caption(record: dict[str, Any]) -> str:
    """Summarize a record's machine, threads, torch version and day in one line."""
    where = record["machine"]
    threads = "1 thread" if where["threads"] == 1 else f"{where['threads']} threads"
    on = where["accelerator"] or f"{where['processor']}, {threads}"
    return f"{on}, torch {record['versions']['torch']}, {record['date'][:10]}"


def processor_name() -> str:
    """Return the manufacturer's name of the processor. Python's own answer is often empty or only the
    architecture.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    on_mac = _output_of("sysctl", "-n", "machdep.cpu.brand_string") if platform.system() == "Darwin" else None
    return on_mac or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the cores of this process: fewer than the machine's if a container or `taskset` restricts it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _output_of(*command: str) -> str | None:
    """Return the command's stripped output; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
