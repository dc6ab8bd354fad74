"""One training of the study, with measurements during and after it."""

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
    """Train and measure.

    In addition to the fields of Evaluation, which are for held-out tiles and count from zero, the numbers contain

        utilization_seen      share of the codes used in any training step
        utilization_window    share of the codes used in the last USAGE_WINDOW steps
        utilization_crops     share of the codes used after training, counted from zero, on new crops of the
                          training photographs, as many as there are held-out tiles
        psnr_db_window        PSNR of the mean squared error in the last USAGE_WINDOW training steps
        psnr_db_crops         PSNR on the crops above, in evaluation mode
        quantization_error    mean of (z − q)² over the channels of held-out latents z and quantized vectors q
        latent_error          quantization_error over the variance of z, independent of the latents' scale
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
    """Return the numbers that a training loop would have logged at its end."""
    curves, described = trained.curves, trained.describe("")
    codes = described["codebook_size"] * described["codebooks"]
    return {
        "utilization_seen": curves.codes_seen / codes if codes else None,
        "utilization_window": int(curves.codes_used[-1]) / codes if codes else None,
        "psnr_db_window": psnr(curves.mse[-USAGE_WINDOW:].double().mean().item()),
    }


def on_crops(trained: Trained, count: int) -> dict[str, Any]:
    """Evaluate the trained model on `count` crops that follow the training batches."""
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
    """Return the quantization error and its share of the latents' variance; 1 if every vector becomes the mean."""
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
