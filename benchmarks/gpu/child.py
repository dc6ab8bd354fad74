"""A process that runs parts of one stage: `python -m benchmarks.gpu.child`, started by processes.py.

It appends a line of JSON before each part and one after it, so that its parent knows what was done and where it
ended, even if a signal ends it.
"""

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.compiling import watch_compiler, watch_interpreter
from benchmarks.gpu.registry import STAGES
from benchmarks.gpu.stages import Numbers, Place, Stage

LONGEST_MESSAGE, LONGEST_TRACE = 600, 2000  # characters


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("lines", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--interpret", action="store_true")
    parser.add_argument("parts", nargs="+")
    arguments = parser.parse_args()
    place = Place(torch.device("cpu" if arguments.interpret else "cuda"), arguments.out)
    with arguments.lines.open("a") as file:
        for part in arguments.parts:
            _append(file, {"part": part})
            numbers = run_part(STAGES[arguments.stage], part, place)
            _append(file, {"part": part, "numbers": numbers})
            if "error" in numbers and not _still_usable(place):
                sys.exit("an error made the device unusable in this process")


def run_part(stage: Stage, part: str, place: Place) -> Numbers:
    """Return the part's numbers, with its seconds and kernels, or the error that ended it."""
    begin = time.perf_counter()
    with watch_interpreter() if place.interpreted else watch_compiler() as kernels:
        try:
            torch.manual_seed(0)
            numbers = stage.run(part, place)
            place.wait()
        except Exception as error:
            text = f"{type(error).__name__}: {error}".strip()
            numbers = {"error": text[:LONGEST_MESSAGE], "trace": traceback.format_exc()[-LONGEST_TRACE:]}
    return numbers | {"seconds": round(time.perf_counter() - begin, 3), "kernels": kernels}


def _append(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _still_usable(place: Place) -> bool:
    try:
        place.wait()
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    main()
