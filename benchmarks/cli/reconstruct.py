"""`python -m benchmarks reconstruct`: the chain's first stage, an autoencoder around a quantizer."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chain import report, stages
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import AUTOENCODING, DIGITS, check_data
from benchmarks.cli.common import LARGEST_SEED, Device, Fresh, Images
from benchmarks.cli.exits import make_writable, resumable, sentences
from benchmarks.errors import InputError
from benchmarks.files import write_json
from benchmarks.sheets import rich_table
from benchmarks.utilization import check_device


def command(
    data: Annotated[str, typer.Option(metavar="NAME", help="digits or photographs.")] = DIGITS,
    quantizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A quantizer with options, such as ema_vq:decay=0.8:gradient=rotation."),
    ] = None,
    levels: Annotated[int, typer.Option(min=1, max=2, help="1: VQ-VAE, 2: VQ-VAE-2.")] = 1,
    codebook_size: Annotated[int | None, typer.Option(min=2, metavar="K", help="Codes in each codebook.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Training steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of all random draws.")] = 0,
    images: Images = None,
    device: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: runs/digits or runs/photographs.")
    ] = None,
    fresh: Fresh = False,
) -> None:
    """Train a VQ-VAE or VQ-VAE-2 on digits or photographs, and measure it on held-out images.

    Writes autoencoder.pt, reconstruct.json and reconstructions.png. Ctrl-C or a kill loses at most a hundred
    steps: run the same command again to resume. The result equals that of an uninterrupted run.
    """
    console = Console()
    with sentences(), resumable(console):
        check_device(device)
        if images is not None and check_data(data) == DIGITS:
            raise InputError("--images: the digits are scikit-learn's; use --images with --data photographs")
        given = {"quantizer": quantizer, "codebook_size": codebook_size, "steps": steps}
        settings = replace(
            AUTOENCODING[check_data(data)],
            levels=levels,
            seed=seed,
            images=None if images is None else str(images),
            **{name: value for name, value in given.items() if value is not None},
        )
        folder = Path("runs", data) if out is None else out
        make_writable(folder)
        _trained, numbers = stages.reconstruct(settings, folder, Bars(console), device=device, fresh=fresh)
        write_json(folder / "reconstruct.json", {"settings": asdict(settings), **numbers})
        console.print(rich_table(report.autoencoder_sheet([{"name": data, "reconstruction": numbers}])))
        console.print(f"In {folder}: autoencoder.pt, reconstruct.json, reconstructions.png", highlight=False)
