"""`python -m benchmarks utilization`: the same autoencoder around each quantizer."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import plots, report
from benchmarks.cli.common import (
    LARGEST_SEED,
    Device,
    Fresh,
    Images,
    Out,
    Quantizers,
    make_folder,
    parse_names,
    read_photographs,
)
from benchmarks.cli.exits import INTERRUPTED, sentences
from benchmarks.crops import held_out_views, to_unit_range
from benchmarks.data import Photographs
from benchmarks.evaluation import to_display
from benchmarks.files import write_json, write_text
from benchmarks.progress import Terminal
from benchmarks.training import Recipe
from benchmarks.utilization import Outcome, check, run
from benchmarks.variants import COMPARED


def command(
    quantizer_names: Quantizers = COMPARED,
    codebook_size: Annotated[
        int, typer.Option(min=2, metavar="K", help="Codes in each codebook.")
    ] = Recipe.codebook_size,
    dim: Annotated[int, typer.Option(min=1, metavar="D", help="Channels of the latent vectors.")] = Recipe.dim,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training steps for each quantizer.")
    ] = Recipe.steps,
    images: Images = None,
    device: Device = Recipe.device,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, metavar="N", help="Seed of the initial weights and the order of the data."
        ),
    ] = Recipe.seed,
    out: Out = Path("runs/utilization"),
    fresh: Fresh = False,
) -> None:
    """Measure codebook utilization and reconstruction quality for each quantizer.

    Trains the same small autoencoder around each quantizer, with the same photographs, initial weights and steps.
    Then measures on held-out photographs: codes used, bits, PSNR and SSIM, time and memory.

    Writes utilization.json, utilization.md and pictures. Ctrl-C keeps finished results; run the same command again
    to resume.
    """
    console = Console()
    recipe = Recipe(codebook_size=codebook_size, dim=dim, steps=steps, seed=seed, device=device)
    with sentences():
        names = parse_names(quantizer_names)
        check(names, recipe)
        photographs = read_photographs(console, images)
        results_folder = make_folder(out)
    terminal = Terminal(console, len(names), steps)
    with terminal.progress:
        outcome = run(names, recipe, photographs, results_folder, fresh=fresh, watcher=terminal)
    write_report(console, out, outcome, recipe, photographs)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


def write_report(console: Console, out: Path, outcome: Outcome, recipe: Recipe, photographs: Photographs) -> None:
    """Write table, JSON, Markdown and pictures of the finished results. Without any, an earlier report is left
    unchanged.
    """
    if not outcome.finished:
        console.print(f"Interrupted before any quantizer was finished; no new report was written to {out}.")
        return
    record = report.full_record(outcome, recipe, photographs)
    originals = to_display(to_unit_range(held_out_views(photographs.held_out)))
    write_json(out / "utilization.json", record)
    write_text(out / "utilization.md", report.markdown(outcome, record))
    pictures = plots.write_all(out, outcome.finished, originals.numpy())
    console.print(report.table(outcome.finished))
    if outcome.missing:
        console.print(f"Not finished: {', '.join(outcome.missing)}. Run the same command again to resume.")
    written = ["utilization.json", "utilization.md", *(path.name for path in pictures)]
    console.print(f"In {out}: {', '.join(written)}", highlight=False)
