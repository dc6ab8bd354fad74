"""`python -m benchmarks kernels`: search and training step, compared with other libraries."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.exits import INTERRUPTED, make_writable, sentences
from benchmarks.files import write_json, write_text
from benchmarks.kernels import plots, pruning_plot, report
from benchmarks.kernels.progress import bar
from benchmarks.kernels.results import Results
from benchmarks.kernels.run import Settings, run, settle, tasks
from benchmarks.machine import caption
from benchmarks.sheets import rich_table


def command(
    device: Annotated[
        str, typer.Option(metavar="NAME", help="The device to run on: cpu, cuda, cuda:1, ...")
    ] = "cpu",
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxKxD",
            help="Vectors, codes and channels, such as 8192x512x64. May be repeated. Default: the shapes of real "
            "tokenizers.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="random (random vectors), real (latents, photographs) or load (beside busy processes). May be "
            "repeated. Default: all, and on a GPU random.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of report and picture.")] = Path(
        "runs/kernels"
    ),
) -> None:
    """Time the nearest-code search and a whole training step against other libraries.

    Measures, interleaved in one run: time, peak memory, wrong indices on difficult data, growth with N, K and D,
    searches of real data, losses beside busy processes, and the project's own performance requirements. Libraries
    that are not installed are left out.

    Writes kernels.json, kernels.md, growth.png and pruning.png. Ctrl-C ends early and reports the measurements so
    far. The folder data keeps the latents of brief trainings for the next run.
    """
    console = Console()
    with sentences():
        settings = settle(device, shapes or [], only or [], out)
        make_writable(out)
    results = Results()
    planned = tasks(settings, results)
    with bar(console, len(planned)) as started:
        run(settings, results, planned, started)
    write_report(console, out, settings, results)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


def write_report(console: Console, out: Path, settings: Settings, results: Results) -> None:
    """Write tables, JSON, Markdown and picture of the measurements. Without any, an earlier report is left
    unchanged.
    """
    if results.is_empty:
        console.print(f"Interrupted before anything was measured; no new report was written to {out}.")
        return
    bars = report.judged(settings, results)
    record = report.full_record(settings, results, bars)
    pictures = [
        *([plots.write(out, results.growth, caption(record))] if results.growth else []),
        *([pruning_plot.write(out, results.pruning, caption(record))] if results.pruning else []),
    ]
    names = [path.name for path in pictures]
    write_json(out / "kernels.json", record)
    write_text(out / "kernels.md", report.markdown(results, bars, record, names))
    for sheet in (*report.sheets(results), report.bar_sheet(bars)):
        console.print(rich_table(sheet), "", highlight=False)
    for sentence in report.notes(results):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: {', '.join(['kernels.json', 'kernels.md', *names])}", highlight=False)
