"""`python -m quantizers diagnose`: what is wrong with a saved quantizer, on a file of vectors."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from torch import Tensor

from quantizers.cli.common import BatchSize, Column, Device, Embeddings, console
from quantizers.cli.exits import NOTHING_WRITTEN, InputError, interruptible, sentences
from quantizers.cli.files import check_suffix, check_target, write_json, written_whole
from quantizers.cli.picture import DPI
from quantizers.cli.ranks import find_device
from quantizers.cli.summary import say
from quantizers.core.base import Quantizer
from quantizers.diagnosis import diagnose
from quantizers.serialization.saving import load
from quantizers.vectors import open_vectors
from quantizers.vectors.base import Vectors

PICTURES = (".png", ".pdf", ".svg")


def command(
    quantizer: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="The folder of a quantizer: what `fit` or quantizers.save wrote.",
            show_default=False,
        ),
    ],
    embeddings: Embeddings,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="PICTURE",
            help="A picture: codes among vectors, how often each is used, the levels of grids. PNG, PDF or SVG, "
            "by the ending of its name.",
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All measures and findings as JSON.")
    ] = None,
    column: Column = None,
    batch_size: BatchSize = 65536,
    device: Device = "cpu",
) -> None:
    """Measure a saved quantizer on vectors, and say what is wrong and what helps.

    Example:  python -m quantizers diagnose ids new.npy --out diagnosis.png

    Prints a table of measures (codes in use, the error, the spread of vectors and codes) and the findings, each
    with its remedy. The exit code is 0 with findings and without; --json gives them to a program. In Python,
    quantizers.diagnose(model, batches) does the same for a model, with gradients.
    """
    shown = console()
    with sentences(), interruptible(NOTHING_WRITTEN):
        target = find_device(device)
        for path in (out, json):
            if path is not None:
                check_target(path)
        if out is not None:
            check_suffix(out, PICTURES)
        loaded = load(quantizer).to(target)
        if not loaded.per_vector:
            raise InputError(
                f"{quantizer} holds a quantizer of maps, expected one of single vectors; call quantizers.diagnose "
                "in Python, with maps"
            )
        vectors = open_vectors(embeddings, column=column, dim=loaded.dim)
        with Progress(console=shown, transient=True, disable=not shown.is_terminal) as progress:
            task = progress.add_task("measuring", total=vectors.count)
            blocks = _blocks(loaded, vectors, batch_size, lambda rows: progress.advance(task, rows))
            report = diagnose(loaded, blocks)
        say(shown, str(report).splitlines())
        if out is not None:
            with written_whole(out) as temporary:
                report.plot().savefig(temporary, dpi=DPI, format=out.suffix[1:])
        if json is not None:
            write_json(json, report.to_dict())
        for path in filter(None, (out, json)):
            say(shown, [f"In {path.parent}: {path.name}"])


def _blocks(quantizer: Quantizer, vectors: Vectors, rows: int, advance: Callable[[int], None]) -> Iterator[Tensor]:
    """The vectors as the quantizer takes them, block by block."""
    for block in vectors.blocks(rows):
        yield block if quantizer.channel_dim == -1 else block.movedim(-1, quantizer.channel_dim)
        advance(len(block))
