"""What a person sees while the study runs: a bar over all trainings, and a line for each."""

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
    """Lines appear where the console is no terminal, too; the bar does not."""

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
        self.taken = 0

    def tell(self, point: Point, result: StoredResult, trained: bool) -> None:
        """A training is finished, or was taken from disk; these are only counted."""
        if trained:
            self.progress.console.print(f"{point}: {numbers_of(result)}", highlight=False, markup=False)
        else:
            self.taken += 1
        self.progress.update(self.task, advance=1, description=self._description())

    def _description(self) -> str:
        return f"trainings, {self.taken} from disk" if self.taken else "trainings"
