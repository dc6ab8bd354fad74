"""A child process of `python -m benchmarks gpu` with one more stage, whose parts end in every way a part can."""

import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu import child
from benchmarks.gpu.registry import STAGES
from benchmarks.gpu.stages import Numbers, Phase, Place, Stage

PARTS = ("fine", "raises", "is killed", "breaks the device", "fine as well", "exits", "fine at last")


def run(part: str, place: Place) -> Numbers:
    if part == "raises":
        raise ValueError("a wrong result")
    if part == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if part == "exits":
        sys.exit("no such kernel")
    if part == "breaks the device":
        Place.wait = _fault  # type: ignore[method-assign]
    if part == "hangs":
        time.sleep(600)
    if part == "hangs and ignores signals":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(600)
    return {"pid": os.getpid(), "out": str(Path(place.out))}


def _fault(self: Place) -> None:
    raise RuntimeError("an illegal memory access was encountered")


STAGE = Stage("faulty", 60, lambda interpreted, workers: [Phase(PARTS)], run)

if __name__ == "__main__":
    STAGES["faulty"] = STAGE
    child.main()
