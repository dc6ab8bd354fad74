"""VQ-VAE and VQ-VAE-2 in one form: images to a tuple of code maps, the top level first, and back."""

import torch
from torch import Tensor

from benchmarks.chain.settings import Autoencoding
from benchmarks.errors import InputError
from benchmarks.models.vqvae import VQVAE
from benchmarks.models.vqvae2 import VQVAE2
from benchmarks.utilization import first_line
from quantizers import Quantizer

Model = VQVAE | VQVAE2
Codes = tuple[Tensor, ...]  # [B, h, w, n] int64 for each level

AT_ONCE = 64  # images


def build(settings: Autoencoding, channels: int) -> Model:
    """An untrained model. Raises: InputError for settings that cannot be."""
    sizes = {"channels": channels, "width": settings.width, "downsampling": settings.downsampling}
    common = {"dim": settings.dim, "codebook_size": settings.codebook_size}
    try:
        if settings.levels == 1:
            return VQVAE.named(settings.quantizer, **common, **sizes)
        return VQVAE2.named(settings.quantizer, settings.quantizer, **common, **sizes)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: no memory for such a codebook
        raise InputError(first_line(error)) from error


def quantizers_of(model: Model) -> tuple[Quantizer, ...]:
    """One for each level, the top first."""
    return (model.quantizer,) if isinstance(model, VQVAE) else (model.top_quantizer, model.bottom_quantizer)


def sizes_of(model: Model) -> tuple[tuple[int, ...], ...]:
    """For each level the number of codes of each of its codebooks."""
    return tuple(quantizer.codebook_sizes for quantizer in quantizers_of(model))


def grids(model: Model, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """For each level (h, w) of the code map of an image of this size."""
    bottom = (height // model.downsampling, width // model.downsampling)
    return (bottom,) if isinstance(model, VQVAE) else ((bottom[0] // 2, bottom[1] // 2), bottom)


@torch.no_grad()
def encode(model: Model, images: Tensor) -> Codes:
    """Codes of each level, on the model's device. Raises: InputError for images that do not fit."""
    device = next(model.parameters()).device
    batches = [model.encode(batch.to(device)) for batch in images.split(AT_ONCE)]
    if isinstance(model, VQVAE):
        return (torch.cat(batches),)
    return tuple(torch.cat(level) for level in zip(*batches, strict=True))


@torch.no_grad()
def decode(model: Model, codes: Codes) -> Tensor:
    """Images in [−1, 1], as a screen would clip them, on the CPU. Raises: InputError for codes outside."""
    batches = zip(*(level.split(AT_ONCE) for level in codes), strict=True)
    images = [model.decode(batch[0] if isinstance(model, VQVAE) else batch) for batch in batches]
    return torch.cat(images).clamp(-1, 1).cpu()
