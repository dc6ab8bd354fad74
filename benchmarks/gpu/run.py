"""The command: the stages in order, each in processes of its own, with a report after every part."""

import importlib.metadata
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, signal
from threading import Event, Lock
from types import FrameType
from typing import Any

import torch
import triton

from benchmarks.errors import InputError
from benchmarks.files import write_json
from benchmarks.gpu.processes import Work, run_phase
from benchmarks.gpu.registry import ON_REQUEST, STAGES
from benchmarks.gpu.stages import Numbers, Stage
from benchmarks.kernels.rivals import FLASH, PEER
from benchmarks.machine import record as machine_record
from benchmarks.machine import usable_cores
from quantizers.kernels.common.dispatch import interpreter_obstacle, triton_obstacle

REPORT = "gpu.json"
MOST_WORKERS = 16
BUDGET = 480.0  # seconds


@dataclass(frozen=True)
class Settings:
    """What to run: stages in their order, whether in Triton's interpreter, the folder, and seconds for it all."""

    stages: tuple[Stage, ...]
    interpreted: bool
    out: Path
    budget: float

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.interpreted else "cuda")


def settle(stages: Sequence[str], interpreted: bool, out: Path, budget: float) -> Settings:
    """Return settings from the command line's options. Without stages: all that need no request.

    Raises: InputError.
    """
    names = [name.strip() for text in stages for name in text.split(",")]
    for name in names:
        if name not in STAGES:
            raise InputError(f"--stage: got {name!r}; expected some of {', '.join(STAGES)}")
    if interpreted:
        if reason := interpreter_obstacle():
            raise InputError(f"--interpret: {reason}")
    elif not torch.cuda.is_available():
        raise InputError("no CUDA device was found; --interpret tries the stages on a CPU")
    elif reason := triton_obstacle(torch.device("cuda", 0)):
        raise InputError(f"the kernels cannot run: {reason}")
    default = [name for name in STAGES if name not in ON_REQUEST]
    chosen = tuple(stage for stage in STAGES.values() if stage.name in (names or default))
    return Settings(chosen, interpreted, out, budget)


def run(settings: Settings, said: Callable[[str, str, Numbers], None]) -> dict[str, Any]:
    """Run the stages and return the report, which lies in `settings.out` after every part.

    A stage that fails or takes too long does not stop the next. Ctrl-C or a termination signal ends all processes;
    the report then contains what was done.

    Args: said: called with the stage, the part and its numbers when it has ended.
    """
    running = _Run(settings, new_report(settings), said)
    try:
        with _termination_interrupts():
            for stage in settings.stages:
                running.run_stage(stage)
    except KeyboardInterrupt:
        running.report["interrupted"] = True
    else:
        running.report["finished"] = True
    running.save()
    return running.report


def new_report(settings: Settings) -> dict[str, Any]:
    """Return a report without stages: device, versions, revision."""
    where = machine_record(settings.device)
    where["versions"] |= {"triton": triton.__version__, **rival_versions()}
    if not settings.interpreted:
        properties = torch.cuda.get_device_properties(0)
        where["machine"] |= {
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
        }
    return {
        "benchmark": "gpu",
        "interpreted": settings.interpreted,
        **where,
        "stages": {},
        "finished": False,
        "interrupted": False,
    }


def rival_versions() -> dict[str, str]:
    """Return the version of each rival's package that is installed, by its name."""
    found = {}
    for name in (FLASH, PEER):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class _Run:
    """A run in progress: its report, and when it must end."""

    def __init__(
        self, settings: Settings, report: dict[str, Any], said: Callable[[str, str, Numbers], None]
    ) -> None:
        self.settings, self.report, self.said = settings, report, said
        self.deadline = time.monotonic() + settings.budget
        self.stop, self.lock = Event(), Lock()

    def run_stage(self, stage: Stage) -> None:
        begin = time.monotonic()
        # The interpreter takes many times as long as a device, and how long says nothing.
        seconds = math.inf if self.settings.interpreted else stage.seconds
        limit = max(0.0, min(seconds, self.deadline - begin))
        entry: dict[str, Any] = {"limit": round(limit, 1), "seconds": 0.0, "parts": {}}
        self.report["stages"][stage.name] = entry

        def measured(part: str, numbers: Numbers) -> None:
            with self.lock:
                entry["parts"][part] = numbers
                entry["seconds"] = round(time.monotonic() - begin, 1)
                self.save()
                self.said(stage.name, part, numbers)

        interpreted = self.settings.interpreted
        work = Work(stage.name, self.settings.out, interpreted, begin + limit, self.stop, measured)
        for phase in stage.phases(interpreted, min(MOST_WORKERS, usable_cores())):
            run_phase(work, phase)

    def save(self) -> None:
        write_json(self.settings.out / REPORT, self.report)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let a termination signal end the block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal(SIGTERM, interrupt)
    try:
        yield
    finally:
        signal(SIGTERM, before)
