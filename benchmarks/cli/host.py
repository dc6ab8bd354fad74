"""`python -m benchmarks host`: the host's time for a GPU's calls, without a GPU."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.common import Out
from benchmarks.cli.exits import make_writable, sentences
from benchmarks.files import write_json, write_text
from benchmarks.host.report import sheet
from benchmarks.host.run import run
from benchmarks.kernels.progress import bar
from benchmarks.sheets import markdown_rows, rich_table


def command(
    rounds: Annotated[int, typer.Option(min=2, metavar="N", help="Rounds of 20 runs of each call.")] = 50,
    out: Out = Path("runs/host"),
) -> None:
    """Measure what the host does for searches and training steps on a GPU. Writes host.json and host.md."""
    console = Console()
    with sentences():
        make_writable(out)
        with bar(console, rounds) as on_start:
            result = run(rounds, lambda: on_start("calls"))
        write_json(out / "host.json", result)
        write_text(out / "host.md", "\n".join(markdown_rows(sheet(result))) + "\n")
    console.print(rich_table(sheet(result)))
