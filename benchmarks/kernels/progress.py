"""What a person sees while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over the tasks; gives a function that is to be called with the name of each as it starts.

    Redrawn only then: a bar that moves by itself takes time from what is measured.
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
