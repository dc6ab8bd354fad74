"""VQ-VAE and VQ-VAE-2 behind one interface: images to a tuple of code maps, the top level first, and back."""

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
    """Return an untrained model. Raises: InputError for invalid settings."""
    sizes = {"channels": channels, "width": settings.width, "downsampling": settings.downsampling}
    common = {"dim": settings.dim, "codebook_size": settings.codebook_size}
    try:
        if settings.levels == 1:
            return VQVAE.named(settings.quantizer, **common, **sizes)
        return VQVAE2.named(settings.quantizer, settings.quantizer, **common, **sizes)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: no memory for such a codebook
        raise InputError(first_line(error)) from error


def quantizers_of(model: Model) -> tuple[Quantizer, ...]:
    """Return the quantizer of each level, the top first."""
    return (model.quantizer,) if isinstance(model, VQVAE) else (model.top_quantizer, model.bottom_quantizer)


def sizes_of(model: Model) -> tuple[tuple[int, ...], ...]:
    """Return the number of codes of each codebook of each level."""
    return tuple(quantizer.codebook_sizes for quantizer in quantizers_of(model))


def grids(model: Model, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return the code map's (h, w) of each level for an image of this size."""
    bottom = (height // model.downsampling, width // model.downsampling)
    return (bottom,) if isinstance(model, VQVAE) else ((bottom[0] // 2, bottom[1] // 2), bottom)


@torch.no_grad()
def encode(model: Model, images: Tensor) -> Codes:
    """Return the codes of each level, on the model's device. Raises: InputError for images of unsuitable sizes."""
    device = next(model.parameters()).device
    batches = [model.encode(batch.to(device)) for batch in images.split(AT_ONCE)]
    if isinstance(model, VQVAE):
        return (torch.cat(batches),)
    return tuple(torch.cat(level) for level in zip(*batches, strict=True))


@torch.no_grad()
def decode(model: Model, codes: Codes) -> Tensor:
    """Return images in [−1, 1], clipped, on the CPU. Raises: InputError for codes out of range."""
    batches = zip(*(level.split(AT_ONCE) for level in codes), strict=True)
    images = [model.decode(batch[0] if isinstance(model, VQVAE) else batch) for batch in batches]
    return torch.cat(images).clamp(-1, 1).cpu()
