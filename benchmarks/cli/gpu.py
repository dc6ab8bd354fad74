"""`python -m benchmarks gpu` and `gpu-report`: what a first hour on a GPU would find, and what to look at first.

This module and what it imports need nothing of the extra `bench` but rich and typer.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cli.exits import FAILED, INTERRUPTED, make_writable, sentences
from benchmarks.gpu import report
from benchmarks.gpu.findings import brief, findings
from benchmarks.gpu.registry import ON_REQUEST, STAGES
from benchmarks.gpu.run import BUDGET, REPORT, run, settle
from benchmarks.gpu.stages import Numbers
from benchmarks.sheets import rich_table

MOST_FINDINGS = 12  # printed at the end of a run


def command(
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help=f"The stages to run, separated by commas or by repeating the option: {', '.join(STAGES)}. "
            f"Default: all in this order but {', '.join(ON_REQUEST)}.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of the report.")] = Path(
        "runs/gpu"
    ),
    budget: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="Time for all stages. Each has a limit, too; speed gets what is left.",
        ),
    ] = BUDGET,
    interpret: Annotated[
        bool,
        typer.Option(
            "--interpret",
            help="Run the stages on tiny tensors on the CPU, in Triton's interpreter. This tries out the command "
            "where there is no GPU: its times mean nothing.",
        ),
    ] = False,
) -> None:
    """Check the kernels on a CUDA device in stages: smoke, exact, tests, speed.

    smoke runs every kernel once against the reference. exact counts wrong indices on difficult data, and measures
    how a matrix unit adds. tests runs the tests that need a device. speed times searches and training steps beside
    torch's own, the device's floors, and, where they can be imported, flash-kmeans and vector-quantize-pytorch;
    lists the kernels that each launches; and runs make bench. Each stage runs in processes of its own.

    Writes gpu.json after every part, so that a run that is cut off leaves what it measured. Exits with 1 if
    anything failed. `gpu-report` prints which goals are met, and what to look at first.
    """
    console = Console()
    with sentences():
        settings = settle(stage or [], interpret, out, budget)
        make_writable(out)
    record = run(settings, lambda *ended: _say(console, *ended))
    _print_findings(console, record, MOST_FINDINGS)
    for sheet in report.sheets(record):
        console.print(rich_table(sheet), "", highlight=False)
    console.print(f"In {out}: {REPORT}; python -m benchmarks gpu-report {out}", highlight=False)
    if record["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    if report.has_failed(record):
        raise typer.Exit(FAILED)


def read_command(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The gpu.json of `python -m benchmarks gpu`, or its folder.")
    ],
) -> None:
    """Print what to look at first in a report of `gpu`: what is broken, wrong, waiting and slow, in this order."""
    console = Console()
    with sentences():
        record = report.read(path)
    for sheet in report.sheets(record):
        console.print(rich_table(sheet), "", highlight=False)
    _print_findings(console, record)


def _say(console: Console, stage: str, part: str, numbers: Numbers) -> None:
    ending = f"failed: {brief(numbers['error'])}" if "error" in numbers else f"{numbers['seconds']:.1f} s"
    console.print(f"{stage}: {part}: {ending}", highlight=False, markup=False, soft_wrap=True)


def _print_findings(console: Console, record: dict[str, Any], most: int | None = None) -> None:
    found = findings(record)
    for number, sentence in enumerate(found[:most], 1):
        console.print(f"{number}. {sentence}", highlight=False, markup=False, soft_wrap=True)
    if not found:
        console.print("Nothing stands out.")
    elif most is not None and len(found) > most:
        console.print(f"and {len(found) - most} more")
    console.print()


# These two commands by themselves: the other commands import packages that may be missing.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("gpu")(command)
app.command("gpu-report")(read_command)
