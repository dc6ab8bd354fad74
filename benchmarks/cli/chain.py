"""`python -m benchmarks chain`: VQ-VAE, prior, samples and compressed codes, of digits and photographs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chain import report
from benchmarks.chain.coding import check_installed
from benchmarks.chain.progress import Bars
from benchmarks.chain.run import LATENT_STEPS, plans, run, shortened
from benchmarks.cli.common import LARGEST_SEED, Device, Fresh, Images, Out, read_photographs
from benchmarks.cli.exits import FAILED, make_writable, resumable, sentences
from benchmarks.files import write_json, write_text
from benchmarks.sheets import rich_table
from benchmarks.utilization import check_device

PICTURES = (
    "samples.png",
    "digits/samples.png",
    "digits/priors.png",
    "digits/captions.png",
    "photographs/reconstructions.png",
    "photographs/samples.png",
    "photographs/priors.png",
)


def command(
    images: Images = None,
    share: Annotated[
        float,
        typer.Option(min=1e-4, max=100, metavar="X", help="Share of the default training steps: 0.1 for a trial."),
    ] = 1.0,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of all random draws.")] = 0,
    out: Out = Path("runs/chain"),
    fresh: Fresh = False,
) -> None:
    """Run the whole chain: an autoencoder around a quantizer, a prior over its codes, samples, and compressed
    codes.

    Runs on scikit-learn's digits, on photographs, and on photographs with two levels of codes. For comparison,
    also samples from a plain autoencoder and a VAE, and from a raster, a masked and a next-scale transformer, the
    last on the codes of a multi-scale autoencoder. A transformer over captions and codes draws digits for a text.
    Writes chain.json, chain.md and pictures. A sub-folder for
    each run contains its checkpoints, which the commands prior, sample and code accept as well.

    Ctrl-C or a kill loses at most a hundred steps: run the same command again to resume.
    """
    console = Console()
    with sentences(), resumable(console):
        check_device(device)
        check_installed()
        if images is not None:
            read_photographs(console, images)  # before minutes of training on digits
        given = plans(None if images is None else str(images), seed, share=share)
        make_writable(out)
        steps = shortened(LATENT_STEPS, share)
        results = run(given, out, Bars(console), latent_steps=steps, seed=seed, device=device, fresh=fresh)
    record = report.full_record(results, device)
    write_json(out / "chain.json", record)
    write_text(out / "chain.md", report.markdown(record, PICTURES))
    for sheet in report.sheets(record):
        console.print(rich_table(sheet), "", highlight=False)
    for each in results.parts:
        console.print(report.exactness(each), highlight=False)
    console.print(f"In {out}: chain.json, chain.md, {', '.join(PICTURES)}", highlight=False)
    if not all(each["coding"]["exact"] for each in results.parts):
        raise typer.Exit(FAILED)
