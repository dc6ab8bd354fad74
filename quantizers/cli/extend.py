"""`python -m quantizers extend`: IDs for new items, beside those that exist."""

from pathlib import Path
from typing import Annotated

import typer

from quantizers.cli.assigning import write_parquet
from quantizers.cli.common import BatchSize, Column, Device, Embeddings, Items, console
from quantizers.cli.exits import NOTHING_WRITTEN, InputError, interruptible, sentences
from quantizers.cli.files import make_writable, staged
from quantizers.cli.items import read_items
from quantizers.cli.progress import shown_on
from quantizers.cli.ranks import find_device
from quantizers.cli.summary import first_names, say, say_files
from quantizers.item_ids import SemanticIDs
from quantizers.vectors import open_vectors


def command(
    embeddings: Embeddings,
    ids: Annotated[
        Path,
        typer.Option(
            "--ids", metavar="FOLDER", help="The folder of semantic IDs that `fit` wrote.", show_default=False
        ),
    ],
    items: Items = None,
    column: Column = None,
    batch_size: BatchSize = 65536,
    device: Device = "cpu",
) -> None:
    """Give IDs to new items, and leave those of the old items as they are.

    Example:  python -m quantizers extend new.npy --ids ids

    The new items get free IDs by the same policy as the old ones (`fit --collisions`), and are appended to the
    folder's ids.npy and items.json, and to ids.parquet if there is one. The quantizer stays as it is. If anything
    goes wrong, the folder is unchanged.
    """
    shown = console()
    with sentences(), interruptible(NOTHING_WRITTEN):
        target = find_device(device)
        if (ids / "config.json").is_file() and not (ids / "semantic_ids.json").is_file():
            raise InputError(
                f"--ids: {ids} has a quantizer without semantic IDs; `encode` gives codes to new vectors"
            )
        table = SemanticIDs.load(ids)
        make_writable(ids)
        vectors = open_vectors(embeddings, column=column)
        names = read_items(items, embeddings, vectors.count)
        old, old_skipped = len(table), len(table.skipped)
        table.quantizer.to(target)
        with shown_on(shown) as progress:
            table.extend(vectors, names, batch_size=batch_size, progress=progress)
        with staged(ids) as folder:
            table.save(folder)
            if (ids / "ids.parquet").exists():
                write_parquet(folder / "ids.parquet", table)
            written = [path.name for path in folder.iterdir()]
        say(shown, [f"{len(table) - old:,} items added to {old:,}, whose IDs are as before"])
        if missing := table.skipped[old_skipped:]:
            say(shown, [f"{len(missing):,} have no ID, because they are not finite: {first_names(missing)}"])
        say_files(shown, ids, written)
