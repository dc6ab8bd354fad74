"""`python -m benchmarks robustness`: what a training can meet, tried on ours and on the main peer."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cli.common import INTERRUPTED, make_writable, sentences
from benchmarks.files import write_json, write_text
from benchmarks.kernels.progress import bar
from benchmarks.robustness import report
from benchmarks.robustness.checks import CHECKS
from benchmarks.robustness.run import installed, run
from benchmarks.sheets import rich_table


def command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = Path("runs/robustness"),
) -> None:
    """Try on quantizers what a training can meet, and on those of vector-quantize-pytorch.

    NaN vectors, empty and masked batches, data far from the origin, half precision, compilation, export,
    recomputation, copies: what becomes of codes, indices and losses, in about half a minute on a CPU.

    Writes robustness.json and robustness.md. Ctrl-C ends early and reports what is done.
    """
    console = Console()
    with sentences():
        make_writable(out)
    builders, missing = installed()
    with bar(console, len(CHECKS)) as started:
        results = run(started, builders, CHECKS)
    results.left_out = missing
    write_report(console, out, report.full_record(results))
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


def write_report(console: Console, out: Path, record: dict[str, Any]) -> None:
    """Table, JSON and Markdown of the checks that were done; where none was, an earlier report stays."""
    if not record["checks"]:
        console.print(f"Interrupted before any check was done; {out} holds no new report.")
        return
    write_json(out / "robustness.json", record)
    write_text(out / "robustness.md", report.markdown(record))
    console.print(rich_table(report.sheet(record)), "", highlight=False)
    for sentence in report.notes(record):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: robustness.json, robustness.md", highlight=False)
