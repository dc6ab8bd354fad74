"""`python -m quantizers decode`: indices to vectors."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import Progress

from quantizers.cli.common import BatchSize, Codebook, Device, console
from quantizers.cli.exits import NOTHING_WRITTEN, InputError, interruptible, sentences
from quantizers.cli.files import check_target
from quantizers.cli.ranks import find_device
from quantizers.cli.reading import read_blocks
from quantizers.cli.summary import say
from quantizers.serialization.saving import load
from quantizers.vectors.files import NpyWriter


def command(
    codes: Annotated[
        Path,
        typer.Argument(
            metavar="CODES",
            help="A file of indices that `fit` or `encode` wrote: .npy, .parquet or .qbs.",
            show_default=False,
        ),
    ],
    quantizer: Codebook,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="vectors.npy: float32 [count, channels].", show_default=False),
    ],
    batch_size: BatchSize = 65536,
    device: Device = "cpu",
) -> None:
    """Write the vectors that indices stand for.

    Example:  python -m quantizers decode codes.npy --quantizer ids --out vectors.npy

    Index -1 gives the zero vector. Indices are read block by block; a bitstream is held in memory as a whole.
    """
    shown = console()
    with sentences(), interruptible(NOTHING_WRITTEN):
        target = find_device(device)
        check_target(out)
        if out.suffix != ".npy":
            raise InputError(f"--out: {out.name} ends in {out.suffix!r}, expected a .npy file")
        loaded = load(quantizer).to(target)
        count = 0
        with (
            NpyWriter(out, np.float32, loaded.dim) as writer,
            torch.no_grad(),
            Progress(console=shown, transient=True, disable=not shown.is_terminal) as progress,
        ):
            task = progress.add_task("decoding", total=None)
            for indices in read_blocks(codes, loaded.num_codebooks, batch_size):
                indices = indices if loaded.composed else indices[:, 0]
                writer.append(loaded.decode(indices.to(target)).float())
                count += len(indices)
                progress.update(task, completed=count)
        say(shown, [f"{count:,} vectors of {loaded.dim} channels decoded", f"In {out.parent}: {out.name}"])
