"""`python -m benchmarks utilization`: the same autoencoder around each quantizer."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import plots, report
from benchmarks import seeds as seed_report
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
from benchmarks.cli.exits import INTERRUPTED, sentences
from benchmarks.crops import held_out_views, to_unit_range
from benchmarks.data import Photographs
from benchmarks.evaluation import to_display
from benchmarks.files import write_json, write_text
from benchmarks.progress import Terminal
from benchmarks.sheets import rich_table
from benchmarks.training import Recipe
from benchmarks.utilization import Outcome, check
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
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Seeds of the initial weights and the order of the data, separated by commas. Default 0. Several "
            "seeds are compared in one table; each gets a folder with its own report.",
        ),
    ] = None,
    out: Out = Path("runs/utilization"),
    fresh: Fresh = False,
) -> None:
    """Measure codebook utilization and reconstruction quality for each quantizer.

    Trains the same small autoencoder around each quantizer, with the same photographs, initial weights and steps.
    Then measures on held-out photographs: codes used, bits, PSNR and SSIM, time and memory.

    Writes utilization.json, utilization.md and pictures; with several seeds, one such report for each in its own
    folder, and seeds.json, seeds.md and a picture with the mean and the range over the seeds. Ctrl-C keeps
    finished results; run the same command again to resume.
    """
    console = Console()
    with sentences():
        chosen = whole_numbers("--seeds", seeds, 0) or (Recipe.seed,)
        recipes = [
            Recipe(codebook_size=codebook_size, dim=dim, steps=steps, seed=seed, device=device) for seed in chosen
        ]
        names = parse_names(quantizer_names)
        check(names, recipes[0])
        photographs = read_photographs(console, images)
        folders = {recipe: out if len(recipes) == 1 else out / f"seed-{recipe.seed}" for recipe in recipes}
        results_folders = {recipe: make_folder(folder) for recipe, folder in folders.items()}
    terminal = Terminal(console, len(recipes) * len(names), steps)
    alone = len(recipes) == 1
    with terminal.progress:
        outcomes = seed_report.run_each(names, photographs, results_folders, fresh=fresh, watcher=terminal)
    for recipe in recipes:
        shown = console if alone else Console(quiet=True)
        write_report(shown, folders[recipe], outcomes[recipe.seed], recipe, photographs)
    if not alone:
        write_seeds(console, out, outcomes, recipes[0], photographs)
    if any(outcome.interrupted for outcome in outcomes.values()):
        raise typer.Exit(INTERRUPTED)


def write_seeds(
    console: Console, out: Path, outcomes: dict[int, Outcome], recipe: Recipe, photographs: Photographs
) -> None:
    """Write JSON, Markdown and the picture of all seeds together. Without a finished result, write nothing."""
    if not any(outcome.finished for outcome in outcomes.values()):
        return
    record = seed_report.full_record(outcomes, recipe, photographs)
    picture = seed_report.draw(out, record)
    write_json(out / "seeds.json", record)
    write_text(out / "seeds.md", seed_report.markdown(record))
    console.print(rich_table(seed_report.sheet(record)), highlight=False)
    console.print(f"In {out}: seeds.json, seeds.md, {picture.name}", highlight=False)


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
