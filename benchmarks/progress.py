"""Progress bars on the terminal while quantizers train."""

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from benchmarks.stored_results import StoredResult
from benchmarks.training import OnStep
from benchmarks.utilization import Watcher

UPDATE_EVERY = 10  # steps, since reading a number synchronizes with the device


def columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a progress bar: description, bar, count, the task's field `state`, and the time
    left."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )


class Terminal(Watcher):
    """Progress bars for the steps of the current training and for all trainings, and a line for each finished
    one."""

    def __init__(self, console: Console, trainings: int, steps: int, title: str = "all quantizers") -> None:
        self.progress = Progress(*columns(), console=console, transient=True)
        self.overall = self.progress.add_task(title, total=trainings, state="")
        self.current = self.progress.add_task("", total=steps, state="", visible=False)
        self.steps = steps

    def reused(self, result: StoredResult) -> None:
        self._say(
            f"{result.name}: finished earlier ({result.numbers['date']}), taken from disk; --fresh trains anew"
        )

    def started(self, name: str) -> OnStep:
        self.progress.reset(self.current, description=name, visible=True, state="")

        def on_step(step: int, mse: torch.Tensor, codes_used: torch.Tensor) -> None:
            if step % UPDATE_EVERY == 0 or step == self.steps:
                state = f"mse {mse.item():.4f}, {codes_used.item()} codes"
                self.progress.update(self.current, completed=step, state=state)

        return on_step

    def finished(self, result: StoredResult) -> None:
        self._say(f"{result.name}: {self.steps} steps in {result.numbers['train_seconds']:.0f} s")

    def _say(self, line: str) -> None:
        self.progress.console.print(line, highlight=False)
        self.progress.update(self.current, visible=False)
        self.progress.advance(self.overall)
