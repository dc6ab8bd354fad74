"""What a person sees while quantizers train."""

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from benchmarks.parts import Part
from benchmarks.training import OnStep
from benchmarks.utilization import Watcher

UPDATE_EVERY = 10  # steps: reading a number waits for the device


def columns() -> tuple[ProgressColumn, ...]:
    """Of a bar over steps: what is done, how far it is, a `state` that the task has as a field, the time left."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )


class Terminal(Watcher):
    """Bars over the steps of a training and over all trainings, and a line for each that is finished."""

    def __init__(self, console: Console, trainings: int, steps: int, title: str = "all quantizers") -> None:
        self.progress = Progress(*columns(), console=console, transient=True)
        self.overall = self.progress.add_task(title, total=trainings, state="")
        self.current = self.progress.add_task("", total=steps, state="", visible=False)
        self.steps = steps

    def reused(self, part: Part) -> None:
        self._say(f"{part.name}: finished earlier ({part.numbers['date']}), taken from disk; --fresh trains anew")

    def started(self, name: str) -> OnStep:
        self.progress.reset(self.current, description=name, visible=True, state="")

        def on_step(step: int, mse: torch.Tensor, codes_used: torch.Tensor) -> None:
            if step % UPDATE_EVERY == 0 or step == self.steps:
                state = f"mse {mse.item():.4f}, {codes_used.item()} codes"
                self.progress.update(self.current, completed=step, state=state)

        return on_step

    def finished(self, part: Part) -> None:
        self._say(f"{part.name}: {self.steps} steps in {part.numbers['train_seconds']:.0f} s")

    def _say(self, line: str) -> None:
        self.progress.console.print(line, highlight=False)
        self.progress.update(self.current, visible=False)
        self.progress.advance(self.overall)
