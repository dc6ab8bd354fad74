"""The command line. Each benchmark is a sub-command; what cannot be used is a sentence and exit code 2."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import quantizers
from benchmarks import plots, report
from benchmarks.crops import held_out_views, to_unit_range
from benchmarks.data import LONGEST_SIDE, Photographs, bundled, from_folder
from benchmarks.errors import InputError
from benchmarks.evaluation import to_display
from benchmarks.files import write_json, write_text
from benchmarks.kernels import plots as kernel_plots
from benchmarks.kernels import report as kernel_report
from benchmarks.kernels.progress import bar
from benchmarks.kernels.results import Results
from benchmarks.kernels.run import Settings, settle, tasks
from benchmarks.kernels.run import run as run_kernels
from benchmarks.progress import Terminal
from benchmarks.robustness import report as robustness_report
from benchmarks.robustness.checks import CHECKS
from benchmarks.robustness.run import installed
from benchmarks.robustness.run import run as run_robustness
from benchmarks.training import Recipe
from benchmarks.utilization import Outcome, check, run
from benchmarks.variants import COMPARED, split_list

BAD_INPUT = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
LARGEST_SEED = 2**63 - 1

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def benchmarks() -> None:
    """Measure the quantizers. Each benchmark is a command and has its own --help."""


@app.command()
def utilization(
    quantizer_names: Annotated[
        list[str],
        typer.Option(
            "--quantizers",
            metavar="NAMES",
            help=f"Which to compare, separated by commas or by repeating the option: "
            f"{', '.join(quantizers.available())}; or all. Options of a constructor follow its name: "
            "ema_vq:decay=0.8:gradient=rotation.",
        ),
    ] = COMPARED,
    codebook_size: Annotated[
        int, typer.Option(min=2, metavar="K", help="Codes in each codebook.")
    ] = Recipe.codebook_size,
    dim: Annotated[int, typer.Option(min=1, metavar="D", help="Channels of the latent vectors.")] = Recipe.dim,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training steps for each quantizer.")
    ] = Recipe.steps,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Your own pictures, at least two, searched with subfolders; one in five is held out, those "
            f"longer than {LONGEST_SIDE} pixels are reduced. Without it: photographs that come with scikit-image "
            "and scikit-learn.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to train: cpu, cuda, cuda:1, ...")
    ] = Recipe.device,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, metavar="N", help="Decides initial weights and the order of the data."
        ),
    ] = Recipe.seed,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where report and pictures go.")] = Path(
        "runs/utilization"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train all again, also those whose results are in the folder already.")
    ] = False,
) -> None:
    """Compare how much of their codebooks quantizers use, and at what quality.

    Trains the same small autoencoder once around each quantizer, with the same photographs, initial weights and
    steps, then measures on photographs that were held out: codes used, bits, PSNR and SSIM, time and memory.

    Writes utilization.json, utilization.md and pictures. Ctrl-C keeps what is finished, and running
    the same command again continues there.
    """
    console = Console()
    recipe = Recipe(codebook_size=codebook_size, dim=dim, steps=steps, seed=seed, device=device)
    try:
        names = parse_names(quantizer_names)
        check(names, recipe)
        photographs = bundled() if images is None else from_folder(images)
        parts_folder = make_folder(out)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    for sentence in photographs.skipped:
        console.print(f"skipped {sentence}", highlight=False, markup=False)
    terminal = Terminal(console, len(names), steps)
    with terminal.progress:
        outcome = run(names, recipe, photographs, parts_folder, fresh=fresh, watcher=terminal)
    write_report(console, out, outcome, recipe, photographs)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def kernels(
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxKxD",
            help="Vectors, codes and channels, as in 8192x512x64; repeat the option for more. Without it: a set "
            "of shapes that real tokenizers have.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where report and picture go.")] = Path(
        "runs/kernels"
    ),
) -> None:
    """Time the search for the nearest code, and a whole training step, against other libraries.

    All in one run and in turns: time, peak memory, wrong indices on data that are hard, growth with N, K and D,
    and the bars that the project sets itself. Libraries that are not installed are left out.

    Writes kernels.json, kernels.md and growth.png. Ctrl-C ends early and reports what is measured.
    """
    console = Console()
    try:
        settings = settle(device, shapes or [])
        make_writable(out)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    results = Results()
    planned = tasks(settings, results)
    with bar(console, len(planned)) as started:
        run_kernels(settings, results, planned, started)
    write_kernel_report(console, out, settings, results)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def robustness(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = Path("runs/robustness"),
) -> None:
    """Try on quantizers what a training can meet, and on those of vector-quantize-pytorch.

    NaN vectors, empty and masked batches, data far from the origin, half precision, compilation, export,
    recomputation, copies: what becomes of codes, indices and losses, in about half a minute on a CPU.

    Writes robustness.json and robustness.md. Ctrl-C ends early and reports what is done.
    """
    console = Console()
    try:
        make_writable(out)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    builders, missing = installed()
    with bar(console, len(CHECKS)) as started:
        results = run_robustness(started, builders, CHECKS)
    results.left_out = missing
    write_robustness_report(console, out, robustness_report.full_record(results))
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)


def parse_names(given: list[str]) -> list[str]:
    """Variants from comma-separated lists, each once, in the order given."""
    names = [name for group in given for name in split_list(group)]
    if not names:
        raise InputError("--quantizers: no name given")
    return list(dict.fromkeys(names))


def make_folder(out: Path) -> Path:
    """Make `out` and the folder of parts in it, and try to write there before hours of training."""
    parts_folder = out / "parts"
    make_writable(out, parts_folder)
    return parts_folder


def make_writable(out: Path, *inner: Path) -> None:
    """Make `out` and folders in it, and write there once. Raises: InputError."""
    try:
        for folder in (out, *inner):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ".writable", "")
            (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write in {out}: {error.strerror or error}") from error


def write_report(console: Console, out: Path, outcome: Outcome, recipe: Recipe, photographs: Photographs) -> None:
    """Table, JSON, Markdown and pictures of what is finished; where nothing is, an earlier report stays."""
    if not outcome.finished:
        console.print(f"Interrupted before any quantizer was finished; {out} holds no new report.")
        return
    record = report.full_record(outcome, recipe, photographs)
    originals = to_display(to_unit_range(held_out_views(photographs.held_out)))
    write_json(out / "utilization.json", record)
    write_text(out / "utilization.md", report.markdown(outcome, record))
    pictures = plots.write_all(out, outcome.finished, originals.numpy())
    console.print(report.table(outcome.finished))
    if outcome.missing:
        console.print(f"Not finished: {', '.join(outcome.missing)}. The same command continues there.")
    written = ["utilization.json", "utilization.md", *(path.name for path in pictures)]
    console.print(f"In {out}: {', '.join(written)}", highlight=False)


def write_kernel_report(console: Console, out: Path, settings: Settings, results: Results) -> None:
    """Tables, JSON, Markdown and picture of what was measured; where nothing was, an earlier report stays."""
    if not results.search:
        console.print(f"Interrupted before anything was measured; {out} holds no new report.")
        return
    bars = kernel_report.judged(settings, results)
    record = kernel_report.full_record(settings, results, bars)
    pictures = [kernel_plots.write(out, results.growth, kernel_report.caption(record))] if results.growth else []
    names = [path.name for path in pictures]
    write_json(out / "kernels.json", record)
    write_text(out / "kernels.md", kernel_report.markdown(results, bars, record, names))
    for sheet in (*kernel_report.sheets(results), kernel_report.bar_sheet(bars)):
        console.print(kernel_report.rich_table(sheet), "", highlight=False)
    for sentence in kernel_report.notes(results):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: {', '.join(['kernels.json', 'kernels.md', *names])}", highlight=False)


def write_robustness_report(console: Console, out: Path, record: dict[str, Any]) -> None:
    """Table, JSON and Markdown of the checks that were done; where none was, an earlier report stays."""
    if not record["checks"]:
        console.print(f"Interrupted before any check was done; {out} holds no new report.")
        return
    write_json(out / "robustness.json", record)
    write_text(out / "robustness.md", robustness_report.markdown(record))
    console.print(kernel_report.rich_table(robustness_report.sheet(record)), "", highlight=False)
    for sentence in robustness_report.notes(record):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"In {out}: robustness.json, robustness.md", highlight=False)
