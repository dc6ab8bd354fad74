"""Progress of a sweep on the terminal."""

from rich.console import Console

from benchmarks.progress import Terminal
from benchmarks.stored_results import StoredResult
from benchmarks.sweep.grid import Point
from benchmarks.sweep.run import PointWatcher
from benchmarks.training import OnStep


class SweepTerminal(Terminal, PointWatcher):
    """Bars for the steps of a point and for all points, and a line for each trained point."""

    def __init__(self, console: Console, points: int, steps: int) -> None:
        super().__init__(console, points, steps, title="all points")
        self.point = ""
        self.reused_count = 0

    def next(self, point: Point) -> None:
        self.point = str(point)

    def reused(self, result: StoredResult) -> None:
        """Only count: one line each would fill the screen when a sweep is resumed."""
        self.reused_count += 1
        self.progress.update(self.overall, advance=1, state=f"{self.reused_count} from disk")

    def started(self, name: str) -> OnStep:
        return super().started(self.point)

    def finished(self, result: StoredResult) -> None:
        self._say(f"{self.point}: {numbers_of(result)}")

    def failed(self, sentence: str) -> None:
        self._say(sentence)


def numbers_of(result: StoredResult) -> str:
    """Summarize a training's main numbers in one line."""
    share = result.numbers["utilization"]
    used = "" if share is None else f"{100 * share:.1f} % of its codes used, "
    return f"{used}{result.numbers['psnr_db']:.2f} dB, {result.numbers['train_seconds']:.0f} s"
