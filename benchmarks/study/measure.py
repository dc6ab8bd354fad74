"""One training of the study, and what is counted of it in training and after it."""

import itertools
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.autoencoder import Autoencoder
from benchmarks.crops import held_out_tiles, to_unit_range
from benchmarks.data import Photographs
from benchmarks.evaluation import copy_tiles, count_codes, evaluate, mean_square, psnr
from benchmarks.stored_results import StoredResult
from benchmarks.training import USAGE_WINDOW, OnStep, Recipe
from benchmarks.utilization import Trained, repeatable_convolutions, train_new
from quantizers import metrics

NO_VIEWS = torch.empty(0, 0, 0, 3, dtype=torch.uint8)


def measure(name: str, recipe: Recipe, photographs: Photographs, on_step: OnStep) -> StoredResult:
    """Train and count.

    Beside the fields of Evaluation, which are of held-out tiles and count from zero, the numbers have

    utilization_seen      share of the codes that were used in any training step
    utilization_window    the same, in the last USAGE_WINDOW steps
    utilization_crops     after training, from zero, on as many new crops of the training photographs as there are
                          held-out tiles
    psnr_db_window        of the mean squared error in the last USAGE_WINDOW training steps
    psnr_db_crops         of these crops, in evaluation mode
    quantization_error    mean (z − q)² over the channels of held-out vectors z and what the quantizer gives, q
    latent_error          the same over the variance of z, which does not change with the scale of the latents
    """
    trained = train_new(name, recipe, photographs, on_step)
    tiles = held_out_tiles(photographs.held_out)
    with repeatable_convolutions():
        evaluation, counts = evaluate(trained.model, tiles)
        numbers = {
            **trained.describe(name),
            **asdict(evaluation),
            **in_training(trained),
            **on_crops(trained, len(tiles)),
            **latent_errors(trained.model, tiles),
        }
    curves = trained.curves
    return StoredResult(
        numbers, counts.flatten().numpy(), curves.mse.numpy(), curves.codes_used.numpy(), NO_VIEWS.numpy()
    )


def in_training(trained: Trained) -> dict[str, Any]:
    """What a training loop would have logged at its end."""
    curves, described = trained.curves, trained.describe("")
    codes = described["codebook_size"] * described["codebooks"]
    return {
        "utilization_seen": curves.codes_seen / codes if codes else None,
        "utilization_window": int(curves.codes_used[-1]) / codes if codes else None,
        "psnr_db_window": psnr(curves.mse[-USAGE_WINDOW:].double().mean().item()),
    }


def on_crops(trained: Trained, count: int) -> dict[str, Any]:
    """The trained model in evaluation mode on `count` crops that would have come next."""
    batch = next(trained.batches)
    more = itertools.islice(trained.batches, -(-count // len(batch)) - 1)
    crops = torch.cat([batch, *more])[:count]
    copies, indices = copy_tiles(trained.model, crops)
    counts = count_codes(indices, trained.model.quantizer)
    return {
        "utilization_crops": metrics.utilization(counts) if counts.numel() else None,
        "psnr_db_crops": psnr(mean_square(to_unit_range(crops), copies)),
    }


@torch.no_grad()
def latent_errors(model: Autoencoder, tiles: torch.Tensor, batch_size: int = 64) -> dict[str, float]:
    """What quantization takes from the latents, and its share of their variance, 1 for a mean in all places."""
    model.eval()
    device = next(model.parameters()).device
    latents, quantized = [], []
    for batch in tiles.split(batch_size):
        z = model.encoder(batch.to(device))
        latents.append(z.cpu().double())
        quantized.append(model.quantizer(z).quantized.cpu().double())
    z, q = torch.cat(latents), torch.cat(quantized)
    error = (z - q).square().mean().item()
    variance = (z - z.mean((0, 2, 3), keepdim=True)).square().mean().item()
    return {"quantization_error": error, "latent_error": error / variance}
