"""`python -m benchmarks versions`: the tests under several releases of PyTorch, Python and NumPy.

This module and what it imports need nothing but rich and typer.
"""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cli.exits import FAILED, INTERRUPTED, make_writable, sentences
from benchmarks.cli.words import split_words
from benchmarks.files import write_json, write_text
from benchmarks.kernels.progress import bar
from benchmarks.sheets import rich_table
from benchmarks.versions import page, parts, report, sets
from benchmarks.versions.environments import parse_interpreters
from benchmarks.versions.run import LIMIT_S, REPORT, Matrix, Settings

TABLES = "versions.md"


def command(
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--sets",
            metavar="LIST",
            help="The releases of torch to test, separated by commas or by repeating the option: "
            f"{', '.join(each.torch for each in sets.SETS)}. Default: all.",
        ),
    ] = None,
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--parts",
            metavar="LIST",
            help=f"The tests to run: {', '.join(part.name for part in parts.PARTS)}. Default: all.",
        ),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RELEASE=PATH",
            help="An interpreter, such as 3.10=/opt/python3.10. May be repeated. Default: python3.10 and so on, "
            "as found on the PATH.",
        ),
    ] = None,
    environments: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder of the virtual environments, which are kept. Default: environments in --out.",
        ),
    ] = None,
    limit: Annotated[
        float, typer.Option(min=0.01, metavar="MINUTES", help="The time limit of each part of a set.")
    ] = LIMIT_S / 60,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run again what an earlier report of these sources has.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of the report.")] = Path(
        "runs/versions"
    ),
) -> None:
    """Run a representative part of the tests with several releases of PyTorch, Python, NumPy and Triton.

    Each set of releases gets a virtual environment, in which pip installs it: some gigabytes each, since PyTorch's
    wheels on PyPI for Linux contain CUDA; to install smaller ones, set PIP_EXTRA_INDEX_URL to PyTorch's index of
    builds for the CPU. A set takes about a quarter of an hour of one core.

    Writes versions.json after each part, versions.md and pytest's output. Run the same command again to resume.
    Exits with 1 if a test failed.
    """
    # A shell lets a job in the background ignore Ctrl-C, and pytest, which is ended by it, would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console()
    with sentences():
        settings = Settings(
            out,
            out / "environments" if environments is None else environments,
            sets.choose(split_words("--sets", chosen)),
            parts.choose(split_words("--parts", named)),
            parse_interpreters(python or []),
            60 * limit,
            fresh,
        )
        make_writable(out)
    with bar(console, len(settings.sets) * (1 + len(settings.parts))) as started:

        def finished(entry: dict[str, Any]) -> None:
            console.print(report.last_line(entry), highlight=False, markup=False, soft_wrap=True)
            write_json(out / REPORT, report.full_record(matrix))

        matrix = Matrix(settings, started, finished)
        matrix.run()
    record = report.full_record(matrix)
    write_json(out / REPORT, record)
    write_text(out / TABLES, page.tables(record) + "\n")
    for sheet in report.sheets(record):
        console.print(rich_table(sheet), "", highlight=False)
    for note in report.notes(record):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print(f"In {out}: {REPORT}, {TABLES}, logs", highlight=False)
    if matrix.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.has_failed(record):
        raise typer.Exit(FAILED)


# This command by itself: the other commands import packages that may be missing.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("versions")(command)


@app.callback()
def benchmarks() -> None:
    """The tests under several releases."""
