"""The progress bar of a fit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quantizers.fitting import Progress as FitProgress

OnProgress = Callable[[FitProgress], None]


@contextmanager
def bar(console: Console, variance: float | None = None) -> Iterator[OnProgress]:
    """A progress bar inside the block: the codebook, the phase, inertia, and codes in use.

    Yields: the function to call with each progress of the fit.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[share]:>5}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("reading", total=None, share="", state="")

        def update(progress: FitProgress) -> None:
            total = progress.total or None
            shown.update(
                task,
                description=f"codebook {progress.codebook + 1} of {progress.codebooks}: {progress.phase}",
                total=total,
                completed=progress.done,
                share="" if total is None else f"{progress.done / total:4.0%}",
                state=state_of(progress),
            )

        yield update


def state_of(progress: FitProgress) -> str:
    """Inertia and codes in use, as far as they are known."""
    inertia = "" if progress.inertia is None else f"inertia {progress.inertia:.4g}"
    used = "" if progress.used is None else f"{progress.used} codes in use"
    return ", ".join(part for part in (inertia, used) if part)
