"""`python -m benchmarks scales`: which training aids keep the scales of a multi-scale tokenizer in use."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import scale_recipes
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import DIGITS, PHOTOGRAPHS, check_data
from benchmarks.cli.common import Device, Fresh, Images, Out, read_photographs, whole_numbers
from benchmarks.cli.exits import make_writable, resumable, sentences
from benchmarks.errors import InputError
from benchmarks.files import write_json, write_text
from benchmarks.sheets import rich_table
from benchmarks.utilization import check_device


def command(
    data: Annotated[str, typer.Option(metavar="NAME", help=f"{DIGITS} or {PHOTOGRAPHS}.")] = DIGITS,
    images: Images = None,
    seeds: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Seeds, separated by commas. Default 0,1,2.")
    ] = None,
    share: Annotated[
        float,
        typer.Option(min=1e-4, max=100, metavar="X", help="Share of the default training steps: 0.1 for a trial."),
    ] = 1.0,
    device: Device = "cpu",
    out: Out = Path("runs/scales"),
    fresh: Fresh = False,
) -> None:
    """Compare training aids of a multi-scale VQ-VAE: the codes that each scale uses.

    Trains the chain's multi-scale autoencoder with one codebook for all scales or one for each, learned by a loss
    or by moving averages, with k-means warm start or the replacement of dead codes. Writes scales.json, scales.md
    and a picture for the data set. Ctrl-C or a kill loses at most a hundred steps: run the same command again.
    """
    console = Console()
    with sentences(), resumable(console):
        check_device(device)
        check_data(data)
        if images is not None:
            if data == DIGITS:
                raise InputError("--images: the digits are scikit-learn's; expected --data photographs with it")
            read_photographs(console, images)
        chosen = whole_numbers("--seeds", seeds, 0) or (0, 1, 2)
        make_writable(out)
        record = scale_recipes.run(
            data,
            chosen,
            out,
            Bars(console),
            share=share,
            images=None if images is None else str(images),
            device=device,
            fresh=fresh,
        )
    folder = out / data
    write_json(folder / "scales.json", record)
    write_text(folder / "scales.md", scale_recipes.markdown(record))
    picture = scale_recipes.draw(folder, record)
    console.print(rich_table(scale_recipes.sheet(record)), highlight=False)
    console.print(f"In {folder}: scales.json, scales.md, {picture.name}", highlight=False)
