"""Progress of the chain on the terminal: a bar for the steps of the current stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks.chain.loop import OnStep
from benchmarks.progress import UPDATE_EVERY, columns


class Bars:
    """Bars on a console, and a line for each finished stage."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self.console.print(line, highlight=False, markup=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "") -> Iterator[OnStep]:
        """Show a bar over `total` steps, then a permanent line with the elapsed time.

        Yields: a function to call with the step, from 1, and a loss in `unit`. Without a terminal, only the lines
        appear.
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
