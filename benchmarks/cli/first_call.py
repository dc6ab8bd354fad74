"""`python -m benchmarks first-call`: how long the first search of a process takes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.common import Out
from benchmarks.cli.exits import make_writable, sentences
from benchmarks.files import write_json
from benchmarks.first_call import STATES, run, sheet
from benchmarks.kernels.progress import bar
from benchmarks.sheets import rich_table


def command(
    wheel: Annotated[Path, typer.Argument(exists=True, help="A wheel of `make wheels` for this machine.")],
    repetitions: Annotated[int, typer.Option(min=1, metavar="N", help="Processes for each state.")] = 5,
    out: Out = Path("runs/first-call"),
) -> None:
    """Measure the first search with a wheel's kernels, cached ones, and compiling. Writes first_call.json."""
    console = Console()
    with sentences():
        make_writable(out)
        with bar(console, repetitions * len(STATES)) as on_start:
            result = run(wheel, repetitions, on_start)
        write_json(out / "first_call.json", result)
    console.print(rich_table(sheet(result)))
