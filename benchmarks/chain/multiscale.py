"""The multi-scale autoencoder of the comparison: training, copies of images, and the use of codes by scale."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.chain import checkpoints
from benchmarks.chain.comparison_settings import Comparing, with_scales
from benchmarks.chain.levels import AT_ONCE
from benchmarks.chain.loop import OnStep, seeded, train
from benchmarks.chain.reconstruction import autoencoder_job
from benchmarks.chain.scale_usage import scale_usage
from benchmarks.chain.settings import Autoencoding
from benchmarks.chain.sources import Source
from benchmarks.errors import InputError
from benchmarks.models.multiscale_vqvae import MultiScaleVQVAE
from benchmarks.utilization import first_line

CHECKPOINT = "multiscale.pt"


class MultiScaleTrained(NamedTuple):
    """A finished multi-scale autoencoder with its data.

    grid: (h, w) of its map for images with the side that it was trained on, which is the priors' as well.
    """

    settings: Autoencoding
    source: Source
    model: MultiScaleVQVAE
    grid: tuple[int, int]

    @property
    def identity(self) -> str:
        """A digest of the weights."""
        return checkpoints.digest(self.model.state_dict())


def fit(
    comparing: Comparing, source: Source, folder: Path, on_step: OnStep, *, device: str, fresh: bool = False
) -> MultiScaleTrained:
    """Train or resume, or load a finished training. Raises: InputError for invalid settings.

    Unlike the autoencoder of a VQ-VAE, it is trained on images as large as the prior's: its scales are shares of
    the map.
    """
    side = source.prior_side
    map_side = side // comparing.autoencoding.downsampling
    variant = with_scales(comparing.autoencoding.quantizer, comparing.sides, map_side)
    settings = replace(comparing.autoencoding, quantizer=variant)
    with seeded(settings.seed):
        model = _build(settings, source.channels).to(device)

    def images(generator: torch.Generator) -> Tensor:
        return source.batch(settings.batch_size, side, generator).images.to(device)

    decides = {**asdict(settings), "data_described": source.describe(), "side": side}
    job = autoencoder_job(model, settings, images, decides)
    train(job, folder / CHECKPOINT, on_step, device=device, fresh=fresh)
    return MultiScaleTrained(settings, source, model, model.grid(side, side))


@torch.no_grad()
def encode(trained: MultiScaleTrained, images: Tensor) -> Tensor:
    """Return tokens [B, L] of images with the side that the model was trained on, on the model's device."""
    device = next(trained.model.parameters()).device
    return torch.cat([trained.model.encode(batch.to(device)) for batch in images.split(AT_ONCE)])


@torch.no_grad()
def decode(trained: MultiScaleTrained, tokens: Tensor) -> Tensor:
    """Return images in [−1, 1], clipped, on the CPU, from the tokens of all scales or of the first ones."""
    images = [trained.model.decode(batch, trained.grid) for batch in tokens.split(AT_ONCE)]
    return torch.cat(images).clamp(-1, 1).cpu()


def prefixes(trained: MultiScaleTrained, image: Tensor) -> Tensor:
    """Return an image [1, C, H, W] as decoded from its first scale, its first two, and so on: [S, C, H, W]."""
    tokens = encode(trained, image)
    lengths = trained.model.lengths(trained.grid)
    return torch.cat([decode(trained, tokens[:, :length]) for length in lengths])


def usage(trained: MultiScaleTrained, images: Tensor) -> list[dict[str, Any]]:
    """Return the use of codes by each scale, the coarsest first; see `ScaleUsage`."""
    found = scale_usage(trained.model.quantizer, encode(trained, images), trained.grid)
    return [asdict(each) for each in found]


def _build(settings: Autoencoding, channels: int) -> MultiScaleVQVAE:
    try:
        return MultiScaleVQVAE.named(
            settings.quantizer,
            dim=settings.dim,
            codebook_size=settings.codebook_size,
            channels=channels,
            width=settings.width,
            downsampling=settings.downsampling,
        )
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: no memory for such a codebook
        raise InputError(first_line(error)) from error
