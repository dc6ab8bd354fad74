"""What the commands share: exit codes, options that several of them have, the folder for results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import quantizers
from benchmarks.data import LONGEST_SIDE, Photographs, bundled, from_folder
from benchmarks.errors import InputError
from benchmarks.files import write_text
from benchmarks.stored_results import FOLDER
from benchmarks.variants import split_list

FAILED = 1  # part of what was asked for could not be measured
BAD_INPUT = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
LARGEST_SEED = 2**63 - 1

Quantizers = Annotated[
    list[str],
    typer.Option(
        "--quantizers",
        metavar="NAMES",
        help=f"Which to compare, separated by commas or by repeating the option: "
        f"{', '.join(quantizers.available())}; or all. Options of a constructor follow its name: "
        "ema_vq:decay=0.8:gradient=rotation.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Your own pictures, at least two, searched with subfolders; one in five is held out, those "
        f"longer than {LONGEST_SIDE} pixels are reduced. Without it: photographs that come with scikit-image "
        "and scikit-learn.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where to train: cpu, cuda, cuda:1, ...")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Where report and pictures go.")]
Run = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Of the command reconstruct, or one of those in runs/chain.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Train all again, also those whose results are in the folder already.")
]


@contextmanager
def sentences() -> Iterator[None]:
    """An InputError inside becomes its sentence and exit code 2."""
    try:
        yield
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def resumable(console: Console) -> Iterator[None]:
    """Ctrl-C inside becomes a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on from the last checkpoint.")
        raise typer.Exit(INTERRUPTED) from None


def parse_names(given: list[str]) -> list[str]:
    """Variants from comma-separated lists, each once, in the order given."""
    names = [name for group in given for name in split_list(group)]
    if not names:
        raise InputError("--quantizers: no name given")
    return list(dict.fromkeys(names))


def read_photographs(console: Console, images: Path | None) -> Photographs:
    """The bundled ones or the user's, with a line for each file that is left out. Raises: InputError."""
    photographs = bundled() if images is None else from_folder(images)
    for sentence in photographs.skipped:
        console.print(f"skipped {sentence}", highlight=False, markup=False)
    return photographs


def make_writable(out: Path, *inner: Path) -> None:
    """Make `out` and folders in it, and write there once, before hours of training. Raises: InputError."""
    try:
        for folder in (out, *inner):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ".writable", "")
            (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write in {out}: {error.strerror or error}") from error


def make_folder(out: Path) -> Path:
    """Make `out` writable, and the folder of parts in it."""
    results_folder = out / FOLDER
    make_writable(out, results_folder)
    return results_folder
