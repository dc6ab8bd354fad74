"""Progress of the study on the terminal: a bar for all trainings, and a line for each."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.stored_results import StoredResult
from benchmarks.sweep.grid import Point
from benchmarks.sweep.progress import numbers_of


class Bar:
    """A progress bar. Without a terminal, only the lines appear, not the bar."""

    def __init__(self, console: Console, trainings: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("trainings", total=trainings)
        self.reused = 0

    def on_point(self, point: Point, result: StoredResult, trained: bool) -> None:
        """Report a finished training. Results loaded from disk are only counted."""
        if trained:
            self.progress.console.print(f"{point}: {numbers_of(result)}", highlight=False, markup=False)
        else:
            self.reused += 1
        self.progress.update(self.task, advance=1, description=self._description())

    def _description(self) -> str:
        return f"trainings, {self.reused} from disk" if self.reused else "trainings"
