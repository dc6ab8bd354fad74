"""Starts the processes of a stage, ends them at its time limit, and hands on what they measure as they measure it.

A fault in a kernel makes the device unusable for the rest of its process, so no two stages share one. If a process
ends in the middle of its parts, another one takes over after the part that ended it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import NamedTuple

from benchmarks.gpu.stages import Numbers, Phase
from benchmarks.machine import ROOT
from benchmarks.processes import end

POLL = 0.05  # seconds
LONGEST_ENDING = 1500  # characters of a log that say why a process ended
TIME_OVER = "the stage's time was over"
CHILD = "benchmarks.gpu.child"


class Work(NamedTuple):
    """What the processes of one stage have in common.

    measured  called with each part's name and numbers, from any thread. A part without numbers, since its process
              ended or the time was over, has an "error" instead
    """

    stage: str
    out: Path
    interpreted: bool
    deadline: float  # of time.monotonic()
    stop: Event  # set to end all processes
    measured: Callable[[str, Numbers], None]

    def is_over(self) -> bool:
        return self.stop.is_set() or time.monotonic() >= self.deadline


def run_phase(work: Work, phase: Phase) -> None:
    """Run the parts of the phase in processes of their own. Ctrl-C ends them all."""
    workers = min(phase.workers, len(phase.parts))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        chunks = [phase.parts[i::workers] for i in range(workers)]
        jobs = [
            pool.submit(_run_chunk, work, f"{work.stage}-{i}", chunk, phase.seconds)
            for i, chunk in enumerate(chunks)
        ]
        try:
            for job in jobs:
                job.result()
        except KeyboardInterrupt:
            work.stop.set()
            raise


def _run_chunk(work: Work, name: str, parts: Sequence[str], seconds: float) -> None:
    left = list(parts)
    while left:
        if work.is_over():
            _fail(work, left, f"not started: {TIME_OVER}")
            return
        before = len(left)
        begun, reason = _run_process(work, name, left, seconds)
        if begun:
            _fail(work, [begun], reason)
            left.remove(begun)
        elif len(left) == before and not work.is_over():  # it cannot even start
            _fail(work, left, reason)
            return


def _fail(work: Work, parts: Sequence[str], reason: str) -> None:
    for part in parts:
        work.measured(part, {"error": reason})


def _run_process(work: Work, name: str, left: list[str], seconds: float) -> tuple[str, str]:
    """Run a process for the parts in `left`, and remove each that ended from it. A part that takes longer than
    `seconds` ends the process.

    Returns the part in which the process ended, empty if it ended between two parts, and how it ended.
    """
    folder = work.out / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    lines, log = _Lines(folder / f"{name}.jsonl"), folder / f"{name}.log"
    with log.open("w") as file:
        process = _start(work, lines.path, file, left)
        try:
            while process.poll() is None and not work.is_over() and lines.lasted() <= seconds:
                time.sleep(POLL)
                _hand_on(work, lines, left)
            in_time, slow = process.poll() is not None, lines.begun if lines.lasted() > seconds else ""
        finally:
            if process.poll() is None:
                end(process)
    _hand_on(work, lines, left)
    if not in_time and slow:
        return slow if slow in left else "", f"stopped after {seconds:.0f} s, the limit of such a part"
    if not in_time:
        return lines.begun, f"stopped: {TIME_OVER}"
    ending = log.read_text(errors="replace").strip()[-LONGEST_ENDING:]
    return lines.begun, f"its process ended with code {process.returncode}: {ending}"


def _start(work: Work, lines: Path, log: object, parts: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", CHILD, work.stage, str(lines), str(work.out.absolute())]
    # torch.compile's functions here are small, and its idle workers would only disturb what is timed.
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if work.interpreted:
        command.append("--interpret")
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.Popen(
        [*command, *parts],
        stdout=log,  # type: ignore[arg-type]
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment,
        start_new_session=True,  # so that its own processes, such as torch.compile's, end with it
    )


class _Lines:
    """The lines of one process: `begun` is the part that began and has not ended, empty between two parts."""

    def __init__(self, path: Path) -> None:
        self.path, self.begun = path.absolute(), ""
        self._since = time.monotonic()
        self.path.touch()
        self._offset = self.path.stat().st_size

    def new(self) -> list[tuple[str, Numbers]]:
        """Return the numbers of the parts that have ended since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")  # the last line may not be finished
        self._offset += len(whole) + 1 if whole else 0
        found = []
        for entry in map(json.loads, whole.splitlines()):
            self.begun, self._since = "" if "numbers" in entry else entry["part"], time.monotonic()
            if "numbers" in entry:
                found.append((entry["part"], entry["numbers"]))
        return found

    def lasted(self) -> float:
        """Return the seconds since the part that has begun was seen; 0 between two parts."""
        return time.monotonic() - self._since if self.begun else 0.0


def _hand_on(work: Work, lines: _Lines, left: list[str]) -> None:
    for part, numbers in lines.new():
        work.measured(part, numbers)
        left.remove(part)
