"""Square patches of the bundled photographs as vectors."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from benchmarks import data
from benchmarks.errors import InputError

# By the number of channels D: side in pixels, and colours.
KINDS = {64: (8, 1), 256: (16, 1), 768: (16, 3)}
BLOCK = 16384  # patches that are cut at once


def blocks(count: int, dim: int) -> Iterator[np.ndarray]:
    """Yield `count` patches in [−1, 1] as float32 blocks [n, dim], in grey (the mean of the colours) or in colour.

    Position, photograph and mirror image are drawn at random, so that all blocks have the same distribution. Every
    photograph gives patches in proportion to its pixels, and each position has four mirror images.

    Raises: InputError if no patch has `dim` channels.
    """
    if dim not in KINDS:
        raise InputError(f"patches have {', '.join(map(str, KINDS))} channels, got {dim}")
    side, colours = KINDS[dim]
    photographs = _photographs(colours)
    corners = np.array([(len(p[0]) - side + 1) * (len(p[0, 0]) - side + 1) for p in photographs], dtype=float)
    draws = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        chosen = draws.choice(len(photographs), n, p=corners / corners.sum())
        block = np.empty((n, colours, side, side), dtype=np.float32)
        for number, photograph in enumerate(photographs):
            rows = (chosen == number).nonzero()[0]
            block[rows] = _cut(photograph, side, len(rows), draws)
        yield block.reshape(n, dim) / np.float32(127.5) - 1


@cache
def _photographs(colours: int) -> tuple[np.ndarray, ...]:
    """The training photographs as [colours, H, W] from 0 to 255."""
    pixels = [photograph.pixels.float() for photograph in data.bundled().train]
    return tuple((p if colours == 3 else p.mean(0, keepdim=True)).numpy() for p in pixels)


def _cut(photograph: np.ndarray, side: int, count: int, draws: np.random.Generator) -> np.ndarray:
    """Return patches [count, colours, side, side] at random positions, mirrored in either direction or not."""
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (side, side), (1, 2))
    top = draws.integers(windows.shape[1], size=count)
    left = draws.integers(windows.shape[2], size=count)
    found = windows[:, top, left].swapaxes(0, 1).copy()
    for axis in (2, 3):
        mirrored = draws.random(count) < 0.5
        found[mirrored] = np.flip(found[mirrored], axis)
    return found
