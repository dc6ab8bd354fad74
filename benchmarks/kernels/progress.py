"""Progress on the terminal during the measurements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar over the tasks. Yields a function to call with the name of each task when it starts.

    The bar redraws only then, since a bar that refreshes on its own takes time from the measurements.
    """
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        line = progress.add_task("", total=total, completed=-1)

        def started(name: str) -> None:
            progress.update(line, advance=1, description=name, refresh=True)

        yield started
