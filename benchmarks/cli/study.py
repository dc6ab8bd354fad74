"""`python -m benchmarks study`: effects that papers claim, tested on the same small autoencoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.cli.common import Device, Fresh, Images, Out, make_folder, read_photographs, whole_numbers
from benchmarks.cli.exits import FAILED, INTERRUPTED, sentences
from benchmarks.errors import InputError
from benchmarks.files import write_json, write_text
from benchmarks.machine import usable_cores
from benchmarks.sheets import rich_table
from benchmarks.study import plots, report
from benchmarks.study.effects import Effect
from benchmarks.study.progress import Bar
from benchmarks.study.questions import EFFECTS
from benchmarks.study.run import points, run
from benchmarks.training import Recipe
from benchmarks.utilization import check_device

STEPS = 2000
SEEDS = (0, 1, 2)


def command(
    effects: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Letters of the effects, separated by commas: "
            + "; ".join(f"{e.key} {e.title}" for e in EFFECTS)
            + ". Default all.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps of each run.")] = STEPS,
    seeds: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Seeds to train everything with. Default 0, 1, 2."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Training processes. Default: one per core; one on a GPU."),
    ] = None,
    images: Images = None,
    device: Device = Recipe.device,
    out: Out = Path("runs/study"),
    fresh: Fresh = False,
) -> None:
    """Test what papers claim: which quantizers keep a codebook in use, converge faster, or gain from more codes.

    Trains the autoencoder of `utilization` around many quantizers, all with the same steps, batches and seeds, and
    reports for each claim whether it holds here, seed by seed. Takes under two hours on two cores.

    Writes study.json, study.md and pictures. Ctrl-C keeps finished results; run the same command again to resume.
    """
    console = Console()
    with sentences():
        asked = choose(effects)
        base = Recipe(steps=steps, device=device)
        all_points = points(asked, base, whole_numbers("--seeds", seeds, 0) or SEEDS)
        check_device(device)
        photographs = read_photographs(console, images)
        folder = make_folder(out)
    workers = workers or (usable_cores() if torch.device(device).type == "cpu" else 1)
    torch.set_num_threads(max(1, usable_cores() // workers))
    bar = Bar(console, len(all_points))
    with bar.progress:
        results = run(all_points, images, folder, workers=workers, fresh=fresh, on_point=bar.on_point)
    if results.finished:
        record = report.full_record(asked, all_points, results, photographs, base, workers)
        write_report(console, out, record, asked)
    else:
        console.print(f"No training was finished; no new report was written to {out}.", highlight=False)
    for sentence in results.failed:
        console.print(sentence, highlight=False, markup=False)
    if results.interrupted:
        console.print(
            f"Interrupted: {len(results.missing(all_points))} trainings left. Run the same command again to "
            "resume."
        )
        raise typer.Exit(INTERRUPTED)
    if results.failed:
        raise typer.Exit(FAILED)


def choose(given: list[str] | None) -> list[Effect]:
    """Return the effects for the given letters, in the study's order. Raises: InputError."""
    letters = {word.strip() for text in given or [] for word in text.split(",") if word.strip()}
    known = {effect.key: effect for effect in EFFECTS}
    if given is not None and not letters:
        raise InputError("--effects: got no letter; expected at least one")
    if unknown := sorted(letters - known.keys()):
        raise InputError(f"--effects: got {unknown[0]!r}; expected one of {', '.join(known)}")
    return [effect for effect in EFFECTS if not letters or effect.key in letters]


def write_report(console: Console, out: Path, record: dict[str, object], effects: Sequence[Effect]) -> None:
    """Write JSON, Markdown and pictures; print the comparisons on the terminal."""
    pictures = plots.write_all(out, record, effects)
    write_json(out / "study.json", record)
    write_text(out / "study.md", report.markdown(record, effects, pictures))
    for effect in effects:
        console.print(rich_table(report.comparison_sheet(record, effect)), "", highlight=False)
    names = [name for each in pictures.values() for name in each]
    console.print(f"In {out}: {', '.join(['study.json', 'study.md', *names])}", highlight=False)
