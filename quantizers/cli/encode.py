"""`python -m quantizers encode`: embeddings to indices."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from quantizers.cli.common import BatchSize, Codebook, Column, Device, Embeddings, Items, console
from quantizers.cli.exits import NOTHING_WRITTEN, InputError, interruptible, sentences
from quantizers.cli.files import check_target
from quantizers.cli.items import read_items
from quantizers.cli.ranks import find_device
from quantizers.cli.summary import say
from quantizers.cli.writing import (
    IndexWriter,
    Names,
    check_format,
    columns_of,
    npy_writer,
    parquet_writer,
    stream_writer,
)
from quantizers.core.base import Quantizer
from quantizers.fitting import encode_vectors
from quantizers.serialization.saving import load
from quantizers.vectors import open_vectors


def command(
    embeddings: Embeddings,
    quantizer: Codebook,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="codes.npy: integers [count, levels]. codes.parquet: the columns item, level_1, level_2, ... "
            "codes.qbs: entropy-coded bytes, which quantizers.bitstream.decompress reads (needs the extra codec).",
            show_default=False,
        ),
    ],
    items: Items = None,
    column: Column = None,
    batch_size: BatchSize = 65536,
    device: Device = "cpu",
) -> None:
    """Write the indices that a fitted quantizer gives to embeddings.

    Example:  python -m quantizers encode new.npy --quantizer ids --out codes.npy

    An embedding that is not finite gets index -1. Vectors are read block by block, so that memory does not grow
    with their number; only a bitstream, whose counts stand before the indices, holds all indices until the end.

    Codes are the nearest ones, also where two items get the same: `extend` gives new items IDs of their own.
    """
    shown = console()
    with sentences(), interruptible(NOTHING_WRITTEN):
        target = find_device(device)
        check_target(out)
        form = check_format(out)
        if items is not None and form != ".parquet":
            raise InputError(f"--items: {out.name} has no column for names, expected --out with a .parquet file")
        loaded = load(quantizer).to(target)
        vectors = open_vectors(embeddings, column=column, dim=loaded.dim)
        names = read_items(items, embeddings, vectors.count)
        count = missing = 0
        with (
            _writer(out, form, loaded, names) as writer,
            Progress(console=shown, transient=True, disable=not shown.is_terminal) as progress,
        ):
            task = progress.add_task("encoding", total=vectors.count)
            for _, indices in encode_vectors(loaded, vectors, batch_size=batch_size):
                writer.append(indices)
                count += len(indices)
                missing += int((indices.reshape(len(indices), -1) < 0).any(-1).sum())
                progress.update(task, completed=count)
        not_finite = [f"{missing:,} of them are not finite and have index -1"] if missing else []
        say(shown, [f"{count:,} vectors encoded", *not_finite, f"In {out.parent}: {out.name}"])


def _writer(out: Path, form: str, quantizer: Quantizer, names: Names) -> AbstractContextManager[IndexWriter]:
    if form == ".qbs":
        return stream_writer(out, quantizer)
    if form == ".parquet":
        return parquet_writer(out, columns_of(quantizer), names)
    return npy_writer(out, columns_of(quantizer), max(quantizer.codebook_sizes) - 1)
