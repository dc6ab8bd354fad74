"""How far a command has come: a bar on a terminal, and lines in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quantizers.fitting import Progress as FitProgress

OnProgress = Callable[[FitProgress], None]


@contextmanager
def bar(console: Console) -> Iterator[OnProgress]:
    """Show the progress of a fit inside the block: the codebook, the phase, inertia, and codes in use.

    Yields: the function to call with each progress.
    """
    if not console.is_terminal:
        yield _Log(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[share]:>4}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("reading", total=None, share="", state="")

        def update(progress: FitProgress) -> None:
            total = progress.total or None
            shown.update(
                task,
                description=stage(progress),
                total=total,
                completed=progress.done,
                share="" if total is None else f"{progress.done / total:4.0%}",
                state=state(progress),
            )

        yield update


class _Log:
    """Prints a line for each pass when it is over, where a bar would fill a file."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: FitProgress | None = None

    def __call__(self, progress: FitProgress) -> None:
        if self.last and progress.inertia not in (None, self.last.inertia):
            self.console.print(f"{stage(self.last)}: {state(progress)}", markup=False)
        self.last = progress


def stage(progress: FitProgress) -> str:
    """Which codebook, and what is done with it."""
    if progress.phase == "encoding":
        return "encoding"
    return f"codebook {progress.codebook + 1} of {progress.codebooks}, {progress.phase}"


def state(progress: FitProgress) -> str:
    """Inertia and codes in use, as far as they are known."""
    inertia = [] if progress.inertia is None else [f"inertia {progress.inertia:.4g}"]
    return ", ".join([*inertia, *([] if progress.used is None else [f"{progress.used:,} codes in use"])])
