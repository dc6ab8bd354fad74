"""`python -m benchmarks offline`: codebooks fitted offline, compared with faiss and scikit-learn."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.exits import INTERRUPTED, make_writable, sentences
from benchmarks.cli.words import split_words
from benchmarks.files import write_json, write_text
from benchmarks.kernels.progress import bar
from benchmarks.kernels.report import bar_sheet
from benchmarks.machine import caption, usable_cores
from benchmarks.offline import plots, report
from benchmarks.offline.bars import judge
from benchmarks.offline.cells import GROUPS, choose
from benchmarks.offline.contenders import CONTENDERS
from benchmarks.offline.run import ROUNDS, Benchmark, Results, Settings, named
from benchmarks.offline.summary import lines
from benchmarks.offline.tables import sheets
from benchmarks.sheets import rich_table


def command(
    cells: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help=f"The groups {', '.join(GROUPS)}, or cells such as kmeans:text:100000x64x256 (N, D, K) and "
            "residual:text:100000x64x4x256 (N, D, codebooks, K), separated by commas. Default: all groups.",
        ),
    ] = None,
    contenders: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=f"May be repeated: {'; '.join(c.name for c in CONTENDERS)}. Default: all."
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="After this time, no further run starts.")
    ] = 35,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs of each contender, as far as the budget allows.")
    ] = ROUNDS,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of each run. Default: one per core.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the folder contains already.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of report and pictures.")] = Path(
        "runs/offline"
    ),
) -> None:
    """Time k-means, residual and product codes against faiss and scikit-learn on photographs, features and text.

    Each run is a process of its own, in random order within a round. Compares seconds per pass from the same
    seeds, and seconds, inertia and memory of every library as its users call it. All groups take about 35 minutes
    on two cores and 10 GiB of disk.

    Writes offline.json, offline.md and pictures. Ctrl-C keeps finished runs; run the same command again to resume.
    """
    console = Console()
    with sentences():
        chosen = choose(split_words("--cells", cells))
        settings = Settings(
            chosen, out, 60 * budget, rounds, named(contenders or []), fresh, threads=threads or usable_cores()
        )
        make_writable(out)
        results = Results()
        with bar(console, settings.turns) as started:
            Benchmark(settings, results, started).run()
    write_report(console, settings, results)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


def write_report(console: Console, settings: Settings, results: Results) -> None:
    """Write tables, JSON, Markdown and pictures. Without a finished run, an earlier report is left unchanged."""
    found = lines(results.runs)
    out = settings.out
    record = report.full_record(settings, results)
    if found:
        names = plots.write(out, found, caption(record))
        bars = judge(found, results.runs)
        write_json(out / "offline.json", record)
        write_text(out / "offline.md", report.markdown(found, bars, record, names))
        for sheet in (*sheets(found), bar_sheet(bars)):
            console.print(rich_table(sheet), "", highlight=False)
    for sentence in record["notes"]:
        console.print(sentence, highlight=False, markup=False)
    if found:
        console.print(f"In {out}: {', '.join(['offline.json', 'offline.md', *names])}", highlight=False)
    else:
        console.print(f"No run was finished; no new report was written to {out}.", highlight=False)
