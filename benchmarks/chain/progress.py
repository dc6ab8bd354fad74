"""What a person sees while the chain runs: a bar over the steps of what is being done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks.chain.loop import OnStep
from benchmarks.progress import UPDATE_EVERY, columns


class Bars:
    """Bars on a console, and a line for each stage that is finished."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, highlight=False, markup=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "") -> Iterator[OnStep]:
        """A bar over `total` steps, and at the end a line that stays, with the time that it took.

        What it gives is to be called with the step, from 1, and a loss in `unit`. Where the console is no terminal
        there are only the lines.
        """
        start = time.perf_counter()
        disable = not self.console.is_terminal
        with Progress(*columns(), console=self.console, transient=True, disable=disable) as progress:
            task = progress.add_task(name, total=total, state="")

            def on_step(step: int, loss: Tensor) -> None:
                if step % UPDATE_EVERY == 0 or step == total:
                    state = f"{unit} {loss.item():.4f}" if unit else ""
                    progress.update(task, completed=step, state=state)

            yield on_step
        self.say(f"  {name}: {total} steps, {time.perf_counter() - start:.0f} s")
