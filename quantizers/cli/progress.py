"""How far a command has come: a bar on a terminal, and lines in a log."""

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from quantizers.fitting import Progress
from quantizers.fitting.progress_bar import ProgressBar
from quantizers.fitting.report import OnProgress


def shown_on(console: Console) -> AbstractContextManager[OnProgress]:
    """What to call with the progress of a fit inside a `with`."""
    return ProgressBar(console) if console.is_terminal else nullcontext(Log(console))


class Log:
    """Prints a line for each pass when it is over, where a bar would fill a file."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show how far a fit has come."""
        last = self.last
        if last and progress.inertia not in (None, last.inertia):
            self.console.print(
                f"codebook {last.codebook + 1} of {last.codebooks}, {last.phase}: inertia {progress.inertia:.4g}, "
                f"{progress.used:,} codes in use",
                markup=False,
            )
        self.last = progress
