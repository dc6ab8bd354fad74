"""The first stage: an autoencoder around a quantizer, trained and measured on held-out images."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import variants
from benchmarks.aids import WARM_START_BATCHES
from benchmarks.chain import checkpoints, levels
from benchmarks.chain.loop import Helper, Job, OnStep, seeded, train
from benchmarks.chain.settings import Autoencoding
from benchmarks.chain.sources import Source, open_source, to_grey_levels
from benchmarks.errors import InputError
from benchmarks.evaluation import psnr
from quantizers import metrics

CHECKPOINT = "autoencoder.pt"


class Trained(NamedTuple):
    """A finished autoencoder with its data."""

    settings: Autoencoding
    source: Source
    model: levels.Model
    losses: Tensor


def fit(
    settings: Autoencoding, folder: Path, on_step: OnStep, *, device: str = "cpu", fresh: bool = False
) -> Trained:
    """Train or resume, or load a finished training. Raises: InputError for invalid settings or data."""
    source = open_source(settings)
    with seeded(settings.seed):
        model = levels.build(settings, source.channels).to(device)

    def images(generator: torch.Generator) -> Tensor:
        return source.batch(settings.batch_size, source.autoencoder_side, generator).images.to(device)

    decides = {**asdict(settings), "data_described": source.describe()}
    job = autoencoder_job(model, settings, images, decides)
    losses = train(job, folder / CHECKPOINT, on_step, device=device, fresh=fresh)
    return Trained(settings, source, model, losses)


def autoencoder_job(
    model: nn.Module, settings: Autoencoding, images: Callable[[torch.Generator], Tensor], decides: dict[str, Any]
) -> Job:
    """Return the training of an autoencoder around a quantizer, with the training aids of its variant.

    Args:
        model: on the device of the images.
        images: draws a batch.
        decides: all that determines the result, see `Job.settings`.
    """
    aids = variants.aids(settings.quantizer)

    def loss(generator: torch.Generator) -> Tensor:
        batch = images(generator)
        out = model(batch)
        return F.mse_loss(out.images, batch) + out.loss

    def begin() -> None:
        first = torch.Generator().manual_seed(settings.seed)
        device = next(model.parameters()).device
        aids.start(model, (images(first) for _ in range(WARM_START_BATCHES)), device)

    def helpers(optimizer: torch.optim.Optimizer) -> list[Helper]:
        return aids.helpers(model, optimizer, settings.steps)

    return Job(model, loss, begin, helpers, decides)


def load(folder: Path, device: str = "cpu") -> Trained:
    """Load a finished autoencoder. Raises: InputError if there is none, or if the data have changed since."""
    path = folder / CHECKPOINT
    content = checkpoints.load_finished(path, "reconstruct")
    stored = dict(content["settings"])
    described = stored.pop("data_described")
    settings = Autoencoding(**stored)
    source = open_source(settings)
    if source.describe() != described:
        raise InputError(
            f"{path} was trained on other images than the current ones: run `reconstruct` to train it again"
        )
    with seeded(settings.seed):
        model = levels.build(settings, source.channels).to(device)
    checkpoints.load_weights(path, model, content["model"])
    return Trained(settings, source, model.eval(), content["losses"])


def measure(trained: Trained) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return numbers on held-out images, these images, and their reconstructions, uint8 [B, C, H, W].

    mse is on the [0, 1] scale, of images rounded to 256 levels as in files. codes_used counts the codes of all
    levels and codebooks. raw_bits_per_pixel takes ⌈log₂ K⌉ bits for each code.
    """
    images = trained.source.held_out().images
    codes = levels.encode(trained.model, images)
    original, copy = to_grey_levels(images), to_grey_levels(levels.decode(trained.model, codes))
    error = mean_square(original, copy)
    sizes = levels.sizes_of(trained.model)
    used, entropy = _use(codes, sizes)
    pixels = images[:, 0].numel()
    numbers = {
        "mse": error,
        "psnr_db": psnr(error),
        "codes_used": used,
        "codes": sum(map(sum, sizes)),
        "codes_an_image": sum(level[0].numel() for level in codes),
        "entropy_bits_per_pixel": entropy / pixels,
        "raw_bits_per_pixel": raw_bits(codes, sizes) / pixels,
        "final_loss": float(trained.losses[-1]),
    }
    return numbers, original, copy


def mean_square(original: Tensor, copy: Tensor) -> float:
    """Return the mean squared error on the [0, 1] scale of two uint8 tensors."""
    return ((original.double() - copy.double()) / 255).square().mean().item()


def raw_bits(codes: levels.Codes, sizes: tuple[tuple[int, ...], ...]) -> int:
    """Return the bits of uncompressed codes: ⌈log₂ K⌉ each."""
    columns = (
        (level[..., c], size) for level, own in zip(codes, sizes, strict=True) for c, size in enumerate(own)
    )
    return sum(column.numel() * (size - 1).bit_length() for column, size in columns)


def _use(codes: levels.Codes, sizes: tuple[tuple[int, ...], ...]) -> tuple[int, float]:
    """Return the number of codes that occur, and the total entropy in bits from the frequencies in each
    codebook."""
    used, bits = 0, 0.0
    for level, own in zip(codes, sizes, strict=True):
        for c, size in enumerate(own):
            counts = metrics.code_counts(level[..., c].cpu(), size)
            used += int((counts > 0).sum())
            bits += float(metrics.entropy(counts)) * level[..., c].numel()
    return used, bits
