"""`python -m benchmarks imports`: how long the package takes to import."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.common import Out
from benchmarks.cli.exits import make_writable, sentences
from benchmarks.files import write_json
from benchmarks.imports import PROGRAMS, run, sheet
from benchmarks.kernels.progress import bar
from benchmarks.sheets import rich_table


def command(
    repetitions: Annotated[int, typer.Option(min=1, metavar="N", help="Processes for each program.")] = 11,
    out: Out = Path("runs/imports"),
) -> None:
    """Measure `import quantizers` beside `import torch` and the main peer. Writes imports.json."""
    console = Console()
    with sentences():
        make_writable(out)
        with bar(console, repetitions * len(PROGRAMS)) as on_start:
            result = run(repetitions, on_start)
        write_json(out / "imports.json", result)
    console.print(rich_table(sheet(result)))
