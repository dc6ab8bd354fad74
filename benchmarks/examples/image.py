"""An image tokenizer: the VQModel of diffusers, with its own quantizer and with one of this library."""

import diffusers
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from benchmarks.crops import held_out_tiles, held_out_views, to_unit_range, training_batches
from benchmarks.data import bundled
from benchmarks.examples.swap import (
    FOLDER,
    Measure,
    Out,
    QuantizerName,
    Seeds,
    Steps,
    Trainer,
    Trial,
    compare,
    decibels,
    write,
)
from quantizers import metrics, plug_in

CODES = 512
MEASURES = (Measure("psnr_db", "PSNR dB"),)


def build(seed: int) -> diffusers.VQModel:
    """Build a small VQModel with 512 codes, with the same initial weights for the same seed."""
    torch.manual_seed(seed)
    return diffusers.VQModel(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=CODES,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def run(model: diffusers.VQModel, seed: int, train: Trainer) -> Trial:
    """Train, then measure on held-out photographs."""
    photographs = bundled()
    batches = training_batches(photographs.train, batch_size=8, seed=seed)

    def step() -> Tensor:
        images = next(batches)
        out = model(images)
        return F.mse_loss(out.sample, images) + out.commit_loss

    train(model, step)
    tiles = held_out_tiles(photographs.held_out, limit=128)
    with torch.no_grad():
        indices = model.quantize(model.encode(tiles).latents)[2][2]
        error = to_unit_range(model(tiles).sample) - to_unit_range(tiles)
        seen = to_unit_range(model(held_out_views(photographs.held_out, side=96)).sample)
    size = model.quantize.n_e
    columns = indices.reshape(len(indices), -1).unbind(-1)  # one for each codebook
    counts = [metrics.code_counts(column, size) for column in columns]
    return Trial({"psnr_db": decibels(torch.ones(1), error)}, counts, seen)


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


def main(quantizer: QuantizerName = "fsq", steps: Steps = 520, seeds: Seeds = 3, out: Out = FOLDER) -> None:
    """Train diffusers' VQModel twice from the same weights, with its own quantizer and with one of this
    library.
    """
    console = Console()
    runs = [
        ("diffusers' own", lambda seed, train: run(build(seed), seed, train)),
        (quantizer, lambda seed, train: run(plug_in(build(seed), quantizer), seed, train)),  # the one line
    ]
    comparison = compare(runs, MEASURES, steps, seeds, console)
    own, swapped = (result.trials[0].shown for result in comparison.results)
    views = to_unit_range(held_out_views(bundled().held_out, side=96))
    rows = {"original": views, "diffusers' own": own, f"{quantizer} swapped in": swapped}
    write(out, "image", comparison, picture(rows), console)


if __name__ == "__main__":
    typer.run(main)
