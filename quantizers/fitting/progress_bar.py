"""A progress bar on the terminal while a fit runs."""

import contextlib
from collections.abc import Iterator
from typing import Any

from quantizers.fitting.report import OnProgress, Progress

TITLES = {
    "sampling": "drawing a sample",
    "growing samples": "k-means on a sample",
    "batches": "averages of batches",
    "all vectors": "k-means on all vectors",
    "encoding": "assigning codes",
}


class ProgressBar:
    """Shows what `fit` reports, one line for each phase of each codebook: `with ProgressBar() as bar: fit(...)`.

    Raises: ImportError without rich.
    """

    def __init__(self, console: Any = None) -> None:
        try:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars
        except ImportError as error:
            raise ImportError("a progress bar needs rich: pip install 'quantizers-torch[cli]'") from error
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("", total=None, state="")

    def __enter__(self) -> "ProgressBar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far a fit has come."""
        title = TITLES.get(progress.phase, progress.phase)
        if progress.codebooks > 1:
            title = f"codebook {progress.codebook + 1} of {progress.codebooks}: {title}"
        state = ""
        if progress.inertia is not None:
            state = f"inertia {progress.inertia:.4g}, {progress.used} codes in use"
        self._bars.update(
            self._task, description=title, completed=progress.done, total=progress.total, state=state
        )


@contextlib.contextmanager
def watched(progress: bool | OnProgress, rank: int) -> Iterator[OnProgress | None]:
    """What to call with the progress: a bar on the first rank, a function of the user's, or nothing."""
    if not callable(progress):
        if not progress or rank:
            yield None
            return
        with ProgressBar() as bar:
            yield bar
        return
    yield progress
