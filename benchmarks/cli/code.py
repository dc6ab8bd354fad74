"""`python -m benchmarks code`: the chain's fourth stage, which compresses held-out images."""

import typer
from rich.console import Console

from benchmarks.chain import priors, reconstruction, report, stages
from benchmarks.chain.coding import check_installed
from benchmarks.chain.progress import Bars
from benchmarks.cli.common import Device, Run
from benchmarks.cli.exits import FAILED, make_writable, resumable, sentences
from benchmarks.files import write_json
from benchmarks.sheets import rich_table
from benchmarks.utilization import check_device


def command(folder: Run, device: Device = "cpu") -> None:
    """Compress held-out images with the priors in a folder, decode them, and compare sizes.

    Writes held_out.codes, the compressed images, and code.json. Exits with 1 unless the decoded codes and images
    equal the originals bit for bit.
    """
    console = Console()
    with sentences(), resumable(console):
        check_device(device)
        check_installed()
        trained = reconstruction.load(folder, device)
        fitted = priors.load(folder, trained, device)
        make_writable(folder)
        numbers = stages.code(trained, fitted, folder, Bars(console), device=device)
        write_json(folder / "code.json", numbers)
    run = {"name": trained.settings.data, "coding": numbers}
    console.print(rich_table(report.rate_sheet(run)))
    console.print(report.exactness(run), highlight=False)
    console.print(f"In {folder}: {stages.CODED}, code.json", highlight=False)
    if not numbers["exact"]:
        raise typer.Exit(FAILED)
