"""What a stage of `python -m benchmarks gpu` is made of: parts, which processes of their own run in phases."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

Numbers = dict[str, Any]  # what a part measured, as JSON


class Place(NamedTuple):
    """Where a part runs, and the folder for files that it writes besides its numbers."""

    device: torch.device
    out: Path

    @property
    def interpreted(self) -> bool:
        """Whether kernels run in Triton's interpreter, where times mean nothing and sizes are tiny."""
        return self.device.type == "cpu"

    def wait(self) -> None:
        """Wait for the device. Raises: RuntimeError if an earlier kernel made its context unusable."""
        if not self.interpreted:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Phase:
    """Parts that do not depend on each other, shared by at most `workers` processes at a time.

    seconds  after which a part is stopped, so that one that hangs leaves time for the others
    """

    parts: tuple[str, ...]
    workers: int = 1
    seconds: float = math.inf


@dataclass(frozen=True)
class Stage:
    """A step of the command.

    name     as in --stage
    seconds  its time limit; infinity for the rest of the command's
    phases   (interpreted, workers) → its phases in order
    run      (part, place) → the part's numbers. An exception is reported, and the other parts go on
    """

    name: str
    seconds: float
    phases: Callable[[bool, int], list[Phase]]
    run: Callable[[str, Place], Numbers]
