"""Convolutional encoders and decoders for any number of channels and downsampling steps.

No layer fixes the image size: any side lengths that are multiples of the downsampling work.
"""

import torch
from torch import Tensor, nn

from benchmarks.errors import InputError
from quantizers.core.arguments.checks import check_at_least


class Residual(nn.Module):
    """x + convolution(SiLU(convolution(SiLU(x))))"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def make_encoder(channels: int, dim: int, *, width: int, downsampling: int) -> nn.Sequential:
    """Return a network from [B, channels, H, W] to [B, dim, H/d, W/d], where d is the downsampling.

    Args:
        width: channels at half resolution; they double with each further halving.

    Raises: ValueError for a size below 1, and for a downsampling that is not a power of two of at least 2.
    """
    widths = _widths(width, downsampling)
    layers: list[nn.Module] = []
    for before, after in zip([check_at_least("channels", channels, 1), *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
    layers[-1] = Residual(widths[-1])  # starts with its own SiLU
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[-1], check_at_least("dim", dim, 1), 1))


def make_decoder(dim: int, channels: int, *, width: int, downsampling: int) -> nn.Sequential:
    """Return a network from [B, dim, h, w] to [B, channels, h·d, w·d], the mirror image of `make_encoder`'s."""
    widths = _widths(width, downsampling)[::-1]
    layers: list[nn.Module] = [
        nn.Conv2d(check_at_least("dim", dim, 1), widths[0], 3, padding=1),
        Residual(widths[0]),
    ]
    for before, after in zip(widths, [*widths[1:], check_at_least("channels", channels, 1)], strict=True):
        layers += [nn.SiLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)


def check_images(images: Tensor, channels: int, multiple: int) -> None:
    """Check for images [B, channels, H, W], floating, with sides that are multiples of `multiple`. Raises:
    InputError.
    """
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise InputError(f"images are {kind}, expected a floating tensor of values in [−1, 1]")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != channels:
        raise InputError(f"images have shape {shape}, expected [B, {channels}, H, W]")
    height, width = shape[2:]
    if not height or not width or height % multiple or width % multiple:
        raise InputError(f"images are {width}×{height}, expected sides that are multiples of {multiple} pixels")


def _widths(width: int, downsampling: int) -> list[int]:
    """Return the channels after each halving."""
    check_at_least("width", width, 1)
    check_at_least("downsampling", downsampling, 2)
    if downsampling & (downsampling - 1):
        raise ValueError(f"downsampling is {downsampling}, expected a power of two")
    return [width << halving for halving in range(downsampling.bit_length() - 1)]
