"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from quantizers.cli.ranks import is_first

Embeddings = Annotated[
    str,
    typer.Argument(
        metavar="EMBEDDINGS",
        help="A file of vectors, one per row: .npy, .safetensors, .parquet, .arrow or .feather. It may be larger "
        "than memory.",
        show_default=False,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="The Parquet column, or the tensor of a .safetensors file, that holds the vectors. Needed only if "
        "there are several.",
    ),
]
Items = Annotated[
    str | None,
    typer.Option(
        "--items",
        metavar="COLUMN|FILE",
        help="The names of the items: a column of the Parquet file, or a text file with one name per line. "
        "Default: the row numbers.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size", min=1, metavar="N", help="Vectors that are in memory at a time. Fewer need less memory."
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="The device that computes: cpu, cuda, cuda:1, ...")
]
Codebook = Annotated[
    Path,
    typer.Option(
        "--quantizer",
        metavar="FOLDER",
        help="The folder of a quantizer: what `fit` or quantizers.save wrote.",
        show_default=False,
    ),
]


def console() -> Console:
    """A console that prints on the first rank alone."""
    return Console(quiet=not is_first(), highlight=False, soft_wrap=True)
