"""PNG, JPEG and WebP of the same images: all of them side by side in one picture, in one file."""

import io
import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from benchmarks.chain.reconstruction import mean_square
from benchmarks.evaluation import psnr

QUALITIES = {"JPEG": range(1, 96), "WEBP": range(101)}  # Pillow advises against JPEG above 95


class File(NamedTuple):
    """The file of one format.

    quality  None for a lossless format
    psnr_db  infinite for a lossless format
    """

    name: str
    size: int
    quality: int | None
    psnr_db: float


def sheet(images: Tensor) -> Tensor:
    """Arrange uint8 [N, C, H, W] as one picture [rows · H, columns · W, C] without gaps, as square as N allows."""
    count, channels, height, width = images.shape
    rows = max(row for row in range(1, math.isqrt(count) + 1) if count % row == 0)
    tiles = images.view(rows, count // rows, channels, height, width)
    return tiles.permute(0, 3, 1, 4, 2).reshape(rows * height, -1, channels)


def lossless(images: Tensor) -> File:
    """Encode as PNG with Pillow's best compression."""
    return File("PNG", len(_encode(sheet(images), "PNG", optimize=True)), None, math.inf)


def nearest_quality(name: str, images: Tensor, target_db: float) -> File | None:
    """Return the file whose PSNR is nearest to the target, the smaller file on ties; None without that codec."""
    if name == "WEBP" and not features.check("webp"):
        return None
    picture = sheet(images)
    files = [_lossy(name, picture, quality) for quality in QUALITIES[name]]
    return min(files, key=lambda file: (abs(file.psnr_db - target_db), file.size))


def _lossy(name: str, picture: Tensor, quality: int) -> File:
    data = _encode(picture, name, quality=quality, **({"optimize": True} if name == "JPEG" else {}))
    with Image.open(io.BytesIO(data)) as opened:
        decoded = np.array(opened.convert("L" if picture.shape[2] == 1 else "RGB"))
    return File(
        name, len(data), quality, psnr(mean_square(picture, torch.from_numpy(decoded).view(picture.shape)))
    )


def _encode(picture: Tensor, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = picture.numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format=name, **options)
    return buffer.getvalue()
