"""`python -m benchmarks sample`: the chain's third stage, images sampled from the prior."""

from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chain import priors, reconstruction, stages
from benchmarks.chain.draws import Filters
from benchmarks.cli.common import LARGEST_SEED, Device, Run
from benchmarks.cli.exits import make_writable, sentences
from benchmarks.utilization import check_device


def command(
    folder: Run,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of ten images.")] = 5,
    temperature: Annotated[
        float, typer.Option(help="Below 1: more likely codes; above 1: more varied codes.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Sample from the K most likely codes.")] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Sample from the most likely codes of total probability P.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of all random draws.")] = 0,
    device: Device = "cpu",
) -> None:
    """Sample codes from the priors in a folder and decode them. For digits, each column is a class.

    Writes samples.png.
    """
    console = Console()
    with sentences():
        check_device(device)
        filters = Filters(temperature, top_k, top_p)
        trained = reconstruction.load(folder, device)
        fitted = priors.load(folder, trained, device)
        make_writable(folder)
        stages.sample(trained, fitted, folder, rows=rows, filters=filters, seed=seed, device=device)
        console.print(f"In {folder}: samples.png", highlight=False)
