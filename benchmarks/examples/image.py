"""The VQModel of diffusers, with its own quantizer and with one of this library."""

from pathlib import Path
from typing import Annotated

import diffusers
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from benchmarks.crops import held_out_tiles, held_out_views, to_unit_range, training_batches
from benchmarks.data import bundled
from benchmarks.examples.swap import Result, decibels, record, table, train
from benchmarks.files import write_json
from benchmarks.plots import save
from quantizers import metrics, plug_in

CODES = 512


def build() -> diffusers.VQModel:
    """Build a small VQModel with 512 codes, with the same initial weights each time."""
    torch.manual_seed(0)
    return diffusers.VQModel(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=8,
        num_vq_embeddings=CODES,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def run(model: diffusers.VQModel, name: str, steps: int, console: Console) -> tuple[Result, Tensor]:
    """Train, then measure on held-out photographs. Also returns reconstructions to look at, in [0, 1]."""
    photographs = bundled()
    batches = training_batches(photographs.train, batch_size=8, seed=0)

    def step(_: int) -> Tensor:
        images = next(batches)
        out = model(images)
        return F.mse_loss(out.sample, images) + out.commit_loss

    train(model, name, step, steps, console)
    tiles = held_out_tiles(photographs.held_out, limit=128)
    with torch.no_grad():
        indices = model.quantize(model.encode(tiles).latents)[2][2]
        error = to_unit_range(model(tiles).sample) - to_unit_range(tiles)
        seen = to_unit_range(model(held_out_views(photographs.held_out, side=96)).sample)
    size = model.quantize.n_e
    columns = indices.reshape(len(indices), -1).unbind(-1)  # one for each codebook
    counts = [metrics.code_counts(column, size) for column in columns]
    return Result(name, decibels(torch.ones(1), error), counts), seen


def picture(rows: dict[str, Tensor]) -> Figure:
    """Draw held-out views, with a row for each model."""
    figure = Figure(figsize=(9, 1.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), next(iter(rows.values())).shape[0])
    for (name, images), line in zip(rows.items(), grid, strict=True):
        for image, axes in zip(images, line, strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontsize=9)
    return figure


def main(
    quantizer: Annotated[str, typer.Option(help="One of quantizers.available().")] = "fsq",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each model.")] = 800,
    out: Annotated[Path, typer.Option(help="The output folder of picture and JSON.")] = Path("runs/examples"),
) -> None:
    """Train diffusers' VQModel twice from the same weights, with its own quantizer and with one of this
    library."""
    console = Console()
    own, own_seen = run(build(), "diffusers' own", steps, console)
    swapped = plug_in(build(), quantizer)  # the one line
    ours, our_seen = run(swapped, quantizer, steps, console)
    console.print(table([own, ours], "PSNR dB"))
    views = to_unit_range(held_out_views(bundled().held_out, side=96))
    out.mkdir(parents=True, exist_ok=True)
    save(out / "image.png", picture({"original": views, own.name: own_seen, ours.name: our_seen}))
    write_json(out / "image.json", record([own, ours], "psnr_db", steps))
    console.print(f"In {out}: image.png, image.json", highlight=False)


if __name__ == "__main__":
    typer.run(main)
