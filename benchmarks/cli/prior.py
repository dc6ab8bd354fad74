"""`python -m benchmarks prior`: the chain's second stage, a prior over the codes of `reconstruct`."""

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chain import reconstruction, report, stages
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import FITTING, PIXELCNN, TRANSFORMER, check_choice
from benchmarks.cli.common import LARGEST_SEED, Device, Fresh, Run
from benchmarks.cli.exits import make_writable, resumable, sentences
from benchmarks.files import write_json
from benchmarks.sheets import rich_table
from benchmarks.utilization import check_device


def command(
    folder: Run,
    model: Annotated[str, typer.Option(metavar="NAME", help="pixelcnn or transformer.")] = PIXELCNN,
    width: Annotated[int | None, typer.Option(min=1, metavar="N", help="Channels of the prior.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Layers of the prior.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.9, help="Dropout rate in training.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Training steps of each level.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of all random draws.")] = 0,
    device: Device = "cpu",
    fresh: Fresh = False,
) -> None:
    """Fit a prior to the codes of an autoencoder, conditioned on the class for digits and on the top level for two
    levels.

    Writes prior-0.pt, for two levels also prior-1.pt, and prior.json. Ctrl-C or a kill loses at most a hundred
    steps: run the same command again to resume.
    """
    console = Console()
    with sentences(), resumable(console):
        check_device(device)
        trained = reconstruction.load(folder, device)
        given = {"width": width, "layers": layers, "dropout": dropout, "steps": steps}
        settings = replace(
            FITTING[trained.settings.data],
            model=check_choice("--model", model, (PIXELCNN, TRANSFORMER)),
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},
        )
        make_writable(folder)
        _fitted, numbers = stages.fit_priors(settings, trained, folder, Bars(console), device=device, fresh=fresh)
        write_json(folder / "prior.json", {"settings": asdict(settings), "levels": numbers})
        console.print(rich_table(report.prior_sheet([{"name": trained.settings.data, "priors": numbers}])))
        names = [f"prior-{level}.pt" for level in range(trained.settings.levels)]
        console.print(f"In {folder}: {', '.join(names)}, prior.json", highlight=False)
