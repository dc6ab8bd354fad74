"""Options that several commands share, and what reads their values."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import quantizers
from benchmarks.cli.exits import make_writable
from benchmarks.cli.words import split_words
from benchmarks.data import LONGEST_SIDE, Photographs, bundled, from_folder
from benchmarks.errors import InputError
from benchmarks.stored_results import FOLDER
from benchmarks.variants import split_list

LARGEST_SEED = 2**63 - 1

Quantizers = Annotated[
    list[str],
    typer.Option(
        "--quantizers",
        metavar="NAMES",
        help=f"The quantizers to compare, separated by commas or by repeating the option: "
        f"{', '.join(quantizers.available())}; `all` for all of them; `recipes` for methods with the aids or "
        "options that their papers prescribe. Constructor options follow the name: "
        "ema_vq:decay=0.8:gradient=rotation.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="A folder of at least two pictures, searched recursively. One in five is held out. Pictures "
        f"longer than {LONGEST_SIDE} pixels are downscaled. Default: the photographs that come with scikit-image "
        "and scikit-learn.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="The device to train on: cpu, cuda, cuda:1, ...")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The output folder of report and pictures.")]
Run = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The output folder of `reconstruct`, or a folder in runs/chain.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again, even if the folder contains results already.")]


def parse_names(given: list[str]) -> list[str]:
    """Return the variants of comma-separated lists, without duplicates, in the given order."""
    names = [name for group in given for name in split_list(group)]
    if not names:
        raise InputError("--quantizers: got no name; expected at least one")
    return list(dict.fromkeys(names))


def read_photographs(console: Console, images: Path | None) -> Photographs:
    """Read the bundled photographs or the user's, and print a line for each skipped file. Raises: InputError."""
    photographs = bundled() if images is None else from_folder(images)
    for sentence in photographs.skipped:
        console.print(f"skipped {sentence}", highlight=False, markup=False)
    return photographs


def make_folder(out: Path) -> Path:
    """Make `out` writable, and create the folder of stored results in it."""
    results_folder = out / FOLDER
    make_writable(out, results_folder)
    return results_folder


def whole_numbers(option: str, given: list[str] | None, least: int) -> tuple[int, ...]:
    """Parse comma-separated lists into sorted, unique numbers; empty if the option is not given. Raises:
    InputError.
    """

    def read(word: str) -> int:
        if not (word.isdecimal() and least <= int(word) <= LARGEST_SEED):
            raise InputError(f"{option}: got {word!r}; expected a whole number from {least} to {LARGEST_SEED}")
        return int(word)

    return tuple(sorted({read(word) for word in split_words(option, given)}))
