"""Squares cut from photographs, as float32 [B, 3, side, side] in [−1, 1]."""

from collections.abc import Iterator, Sequence

import torch

from benchmarks.data import TILE, Photograph

VIEWS = 6  # pictures in the report


def to_model_range(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0 ... 255 to float32 −1 ... 1."""
    return pixels.float() / 127.5 - 1


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """−1 ... 1 to 0 ... 1; what a decoder put outside is clipped, as it would be on a screen."""
    return (images.clamp(-1, 1) + 1) / 2


def training_batches(photographs: Sequence[Photograph], batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless [B, 3, 32, 32]: a random photograph, a random place in it, flipped left to right every other time.

    The generator is its own, so the sequence depends on the seed alone and not on what a model draws.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield random_crops(photographs, batch_size, generator)


def random_crops(
    photographs: Sequence[Photograph], count: int, generator: torch.Generator, side: int = TILE
) -> torch.Tensor:
    """[count, 3, side, side] as `training_batches` has them; no photograph may be smaller than that."""
    draws = torch.rand(count, 4, generator=generator).tolist()
    return to_model_range(torch.stack([_random_crop(photographs, side, *draw) for draw in draws]))


def _random_crop(
    photographs: Sequence[Photograph], side: int, which: float, down: float, right: float, flip: float
) -> torch.Tensor:
    """uint8 [3, side, side]; the four draws are uniform in [0, 1)."""
    pixels = photographs[int(which * len(photographs))].pixels
    top = int(down * (pixels.shape[1] - side + 1))
    left = int(right * (pixels.shape[2] - side + 1))
    crop = pixels[:, top : top + side, left : left + side]
    return crop.flip(2) if flip < 0.5 else crop


def held_out_tiles(photographs: Sequence[Photograph], limit: int = 512) -> torch.Tensor:
    """[B, 3, 32, 32]: each photograph's grid of tiles; of more than `limit`, that many at even distances."""
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
    """[count, 3, S, S] for a person to look at: larger squares along the photographs' middle lines.

    S is `side`, or what the smallest photograph allows, in whole tiles. The photographs take turns.
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
