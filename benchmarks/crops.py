"""Square crops of photographs, as float32 [B, 3, side, side] in [−1, 1]."""

from collections.abc import Iterator, Sequence

import torch

from benchmarks.data import TILE, Photograph

VIEWS = 6  # pictures in the report


def to_model_range(pixels: torch.Tensor) -> torch.Tensor:
    """Map uint8 0 ... 255 to float32 −1 ... 1."""
    return pixels.float() / 127.5 - 1


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Map −1 ... 1 to 0 ... 1. Decoder outputs beyond that range are clipped, as on a screen."""
    return (images.clamp(-1, 1) + 1) / 2


def training_batches(photographs: Sequence[Photograph], batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches [B, 3, 32, 32] without end: random crops of random photographs, half of them mirrored
    horizontally.

    The function has its own generator, so the sequence depends on the seed alone and not on a model's random
    draws.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield random_crops(photographs, batch_size, generator)


def random_crops(
    photographs: Sequence[Photograph], count: int, generator: torch.Generator, side: int = TILE
) -> torch.Tensor:
    """Return [count, 3, side, side] crops as `training_batches` draws them. No photograph may be smaller than a
    crop.
    """
    draws = torch.rand(count, 4, generator=generator).tolist()
    return to_model_range(torch.stack([_random_crop(photographs, side, *draw) for draw in draws]))


def _random_crop(
    photographs: Sequence[Photograph], side: int, which: float, down: float, right: float, flip: float
) -> torch.Tensor:
    """Return uint8 [3, side, side]; the four draws are uniform in [0, 1)."""
    pixels = photographs[int(which * len(photographs))].pixels
    top = int(down * (pixels.shape[1] - side + 1))
    left = int(right * (pixels.shape[2] - side + 1))
    crop = pixels[:, top : top + side, left : left + side]
    return crop.flip(2) if flip < 0.5 else crop


def held_out_tiles(photographs: Sequence[Photograph], limit: int = 512) -> torch.Tensor:
    """Return [B, 3, 32, 32], each photograph cut into a grid of tiles; at most `limit` of them, evenly spaced."""
    corners = [
        (photograph, top, left)
        for photograph in photographs
        for top in range(0, photograph.pixels.shape[1] - TILE + 1, TILE)
        for left in range(0, photograph.pixels.shape[2] - TILE + 1, TILE)
    ]
    count = min(limit, len(corners))
    chosen = [corners[i * len(corners) // count] for i in range(count)]
    tiles = [p.pixels[:, top : top + TILE, left : left + TILE] for p, top, left in chosen]
    return to_model_range(torch.stack(tiles))


def held_out_views(photographs: Sequence[Photograph], count: int = VIEWS, side: int = 160) -> torch.Tensor:
    """Return [count, 3, S, S] views for a person to look at: larger squares along the photographs' middle lines.

    S is `side`, or the largest multiple of the tile size that fits in the smallest photograph. The views alternate
    between the photographs.
    """
    side = min(side, *(min(p.pixels.shape[1:]) // TILE * TILE for p in photographs))
    views = [torch.empty(0, 3, side, side, dtype=torch.uint8)]
    for i in range(count):
        pixels = photographs[i % len(photographs)].pixels
        turn, turns = i // len(photographs), -(-count // len(photographs))
        top = (pixels.shape[1] - side) // 2
        left = (pixels.shape[2] - side) * (2 * turn + 1) // (2 * turns)
        views.append(pixels[None, :, top : top + side, left : left + side])
    return to_model_range(torch.cat(views))
