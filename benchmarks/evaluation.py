"""Reconstruction quality and code statistics on held-out images. All counts start from zero."""

import math
from dataclasses import dataclass

import torch
from skimage.metrics import structural_similarity

from benchmarks.autoencoder import Autoencoder
from benchmarks.codes import count_codebooks, numbered
from benchmarks.crops import to_unit_range
from quantizers import Quantizer, metrics


@dataclass(frozen=True)
class Evaluation:
    """Means over all held-out tiles. The code statistics are None for a quantizer without codes.

    mse             on the [0, 1] scale, of clipped but not rounded reconstructions
    psnr_db         10 log10(1 / mse) of the mean above, not the mean over the tiles
    ssim            scikit-image's structural similarity with its default 7×7 window, mean over tiles
    codes_used      codes that occur at least once, summed over all codebooks
    utilization     codes_used / number of codes
    perplexity      2 ** entropy_bits: the number of equally frequent codes with the same entropy
    entropy_bits    bits per code, from the codes' frequencies; the mean over several codebooks
    bits_per_pixel  entropy_bits times codes per pixel
    """

    mse: float
    psnr_db: float
    ssim: float
    codes_used: int | None
    utilization: float | None
    perplexity: float | None
    entropy_bits: float | None
    bits_per_pixel: float | None


@torch.no_grad()
def evaluate(model: Autoencoder, tiles: torch.Tensor, batch_size: int = 64) -> tuple[Evaluation, torch.Tensor]:
    """Evaluate on `tiles` [B, 3, 32, 32] in [−1, 1]. Also returns how often each code occurred, int64 [codebooks,
    K].
    """
    copy, codes = copy_tiles(model, tiles, batch_size)
    original = to_unit_range(tiles)
    mse = mean_square(original, copy)
    counts = count_codes(codes, model.quantizer)
    codes_per_pixel = codes.numel() / tiles[:, 0].numel()
    evaluation = Evaluation(mse, psnr(mse), ssim(original, copy), *code_statistics(counts, codes_per_pixel))
    return evaluation, counts


@torch.no_grad()
def copy_tiles(model: Autoencoder, tiles: torch.Tensor, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return reconstructions [B, 3, 32, 32] in [0, 1] and all indices, in evaluation mode."""
    model.eval()
    reconstructions, indices = [], []
    for batch in tiles.split(batch_size):
        reconstruction, out = model(batch.to(_device(model)))
        reconstructions.append(to_unit_range(reconstruction.cpu()))
        indices.append(out.indices.cpu())
    return torch.cat(reconstructions), torch.cat(indices)


def mean_square(original: torch.Tensor, copy: torch.Tensor) -> float:
    """Return the mean squared error, summed in float64."""
    return (original - copy).square().double().mean().item()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """Return reconstructions as uint8 [B, H, W, 3], for pictures."""
    model.eval()
    unit = to_unit_range(model(images.to(_device(model)))[0].cpu())
    return to_display(unit)


def to_display(unit: torch.Tensor) -> torch.Tensor:
    """Convert [B, 3, H, W] in [0, 1] to uint8 [B, H, W, 3]."""
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def psnr(mse: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error on the [0, 1] scale; infinite for
    zero."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(original: torch.Tensor, copy: torch.Tensor) -> float:
    """Return the structural similarity of two [B, 3, H, W] in [0, 1], as the mean over the images."""
    pairs = zip(original.numpy(), copy.numpy(), strict=True)
    values = [structural_similarity(a, b, channel_axis=0, data_range=1.0) for a, b in pairs]
    return float(sum(values) / len(values))


def count_codes(indices: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """Return the counts as int64 [codebooks, K]; empty for a quantizer without codes."""
    codebooks, size = count_codebooks(quantizer), quantizer.codebook_size
    if size == 0:
        return torch.zeros(1, 0, dtype=torch.int64)
    return metrics.code_counts(numbered(indices, quantizer), codebooks * size).view(codebooks, size)


def code_statistics(
    counts: torch.Tensor, codes_per_pixel: float
) -> tuple[int | None, float | None, float | None, float | None, float | None]:
    """Return the last five fields of Evaluation from counts [codebooks, K]; all None if K is 0."""
    if counts.numel() == 0:
        return None, None, None, None, None
    entropy = sum(map(metrics.entropy, counts)) / len(counts)
    return (
        int((counts > 0).sum()),
        metrics.utilization(counts),
        2.0**entropy,
        entropy,
        entropy * codes_per_pixel,
    )


def _device(model: Autoencoder) -> torch.device:
    return next(model.parameters()).device
