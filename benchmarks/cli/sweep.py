"""`python -m benchmarks sweep`: the utilization benchmark over codebook size, dimension and learning rate."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cli.common import (
    Device,
    Fresh,
    Images,
    Out,
    Quantizers,
    make_folder,
    parse_names,
    read_photographs,
    whole_numbers,
)
from benchmarks.cli.exits import FAILED, INTERRUPTED, sentences
from benchmarks.cli.words import split_words
from benchmarks.data import Photographs
from benchmarks.errors import InputError
from benchmarks.files import write_json, write_text
from benchmarks.sheets import rich_table
from benchmarks.sweep import plots, report
from benchmarks.sweep.grid import DEFAULT_LIMITS, FULL, FULL_STEPS, SMALL, SMALL_STEPS, Axes, Grid
from benchmarks.sweep.progress import SweepTerminal
from benchmarks.sweep.run import Results, check, run
from benchmarks.training import Recipe
from benchmarks.variants import CORE


def _default(values: Sequence[float], full: Sequence[float]) -> str:
    small, large = (", ".join(map(report.plain, each)) for each in (values, full))
    return f"Default {small}; with --full {large}."


def command(
    quantizer_names: Quantizers = CORE,
    codebook_sizes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="K, separated by commas. " + _default(SMALL.codebook_sizes, FULL.codebook_sizes),
        ),
    ] = None,
    dims: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="D, separated by commas. " + _default(SMALL.dims, FULL.dims)),
    ] = None,
    learning_rates: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Learning rates of Adam, separated by commas. "
            + _default(SMALL.learning_rates, FULL.learning_rates),
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Seeds to train every point with. " + _default(SMALL.seeds, FULL.seeds)),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Training steps of each point. Default {SMALL_STEPS}; with --full {FULL_STEPS}.",
        ),
    ] = None,
    images: Images = None,
    device: Device = Recipe.device,
    out: Out = Path("runs/sweep"),
    fresh: Fresh = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Every combination of K, D and learning rate, with longer lists, more steps and three seeds: "
            "hours on a GPU.",
        ),
    ] = False,
) -> None:
    """Vary codebook size K, latent channels D and learning rate; measure code use, bits and PSNR.

    Trains the autoencoder of `utilization`. One axis varies at a time while the other two stay at the centre: K at
    D 32 and learning rate 0.003, then D and learning rate at K 1024 (or the values in the lists that are nearest
    to these). --full trains every combination. Gumbel, whose step reads a logit for each vector and code, stops at
    K 4096 unless --codebook-sizes or --full is given.

    Writes sweep.json, sweep.md and pictures. Ctrl-C keeps finished results; run the same command again to resume.
    """
    console = Console()
    with sentences():
        usual = FULL if full else SMALL
        axes = Axes(
            whole_numbers("--codebook-sizes", codebook_sizes, 2) or usual.codebook_sizes,
            whole_numbers("--dims", dims, 1) or usual.dims,
            positive_numbers("--learning-rates", learning_rates) or usual.learning_rates,
            whole_numbers("--seeds", seeds, 0) or usual.seeds,
        )
        base = Recipe(steps=steps or (FULL_STEPS if full else SMALL_STEPS), device=device)
        limits = {} if full or codebook_sizes else DEFAULT_LIMITS
        grid = Grid(parse_names(quantizer_names), axes, base, crossed=full, limits=limits)
        check(grid)
        photographs = read_photographs(console, images)
        results_folder = make_folder(out)
    terminal = SweepTerminal(console, len(grid.points()), base.steps)
    with terminal.progress:
        results = run(grid, photographs, results_folder, fresh=fresh, watcher=terminal)
    write_report(console, out, grid, results, photographs)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)
    if results.failed:
        raise typer.Exit(FAILED)


def positive_numbers(option: str, given: list[str] | None) -> tuple[float, ...]:
    """Parse learning rates in the same way as `whole_numbers`."""

    def read(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise InputError(f"{option}: got {word!r}; expected a number above 0")
        return value

    return tuple(sorted({read(word) for word in split_words(option, given)}))


def write_report(console: Console, out: Path, grid: Grid, results: Results, photographs: Photographs) -> None:
    """Write tables, JSON, Markdown and pictures of the finished points. Without any, an earlier report is left
    unchanged.
    """
    if not results.points:
        console.print(f"No point was finished; no new report was written to {out}.")
        for sentence in results.failed:
            console.print(sentence, highlight=False, markup=False)
        return
    record = report.full_record(grid, results, photographs)
    names = [path.name for path in plots.write_all(out, record)]
    write_json(out / "sweep.json", record)
    write_text(out / "sweep.md", report.markdown(record, names))
    for sheet in report.short_sheets(record):
        console.print(rich_table(sheet), "", highlight=False)
    for sentence in report.notes(record):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: {', '.join(['sweep.json', 'sweep.md', *names])}", highlight=False)
