"""`python -m benchmarks robustness`: difficult inputs and conditions, for this library and the main peer."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cli.exits import INTERRUPTED, make_writable, sentences
from benchmarks.files import write_json, write_text
from benchmarks.kernels.progress import bar
from benchmarks.robustness import report
from benchmarks.robustness.checks import CHECKS
from benchmarks.robustness.run import installed, run
from benchmarks.sheets import rich_table


def command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of the report.")] = Path(
        "runs/robustness"
    ),
) -> None:
    """Check how quantizers of this library and of vector-quantize-pytorch behave under difficult conditions.

    NaN vectors, empty and masked batches, data far from the origin, half precision, compilation, export,
    recomputation and copies: reports the effect on codes, indices and losses. Takes about half a minute on a CPU.

    Writes robustness.json and robustness.md. Ctrl-C ends early and reports the finished checks.
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
    """Write table, JSON and Markdown of the finished checks. Without any, an earlier report is left unchanged."""
    if not record["checks"]:
        console.print(f"Interrupted before any check was finished; no new report was written to {out}.")
        return
    write_json(out / "robustness.json", record)
    write_text(out / "robustness.md", report.markdown(record))
    console.print(rich_table(report.sheet(record)), "", highlight=False)
    for sentence in report.notes(record):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: robustness.json, robustness.md", highlight=False)
