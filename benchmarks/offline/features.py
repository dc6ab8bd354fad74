"""Features of the benchmark's autoencoder, trained briefly without a quantizer, as vectors."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import data
from benchmarks.autoencoder import build
from benchmarks.crops import random_crops, training_batches
from benchmarks.errors import InputError
from benchmarks.training import Recipe, train

WIDTH = 64  # channels of one feature
# By the number of channels D: the neighbourhood of features, in height and width, that makes one vector.
NEIGHBOURHOODS = {64: (1, 1), 256: (2, 2), 768: (3, 4)}
STEPS = 120  # of training
SIDE = 128  # pixels of the crops that are encoded
CROPS = 16  # encoded at once


def blocks(count: int, dim: int) -> Iterator[np.ndarray]:
    """Yield `count` vectors of random crops as float32 blocks [n, dim]: neighbourhoods of features, side by side.

    Raises: InputError if no neighbourhood has `dim` channels.
    """
    if dim not in NEIGHBOURHOODS:
        raise InputError(f"features have {', '.join(map(str, NEIGHBOURHOODS))} channels, got {dim}")
    encoder, photographs = _encoder(), data.bundled().train
    generator = torch.Generator().manual_seed(1)  # Recipe's seed is 0
    left = count
    while left > 0:
        with torch.no_grad():
            maps = encoder(random_crops(photographs, CROPS, generator, SIDE))
        block = neighbourhoods(maps, NEIGHBOURHOODS[dim])
        block = block[torch.randperm(len(block), generator=generator)][:left]
        left -= len(block)
        yield block.numpy()


def neighbourhoods(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut maps [B, C, H, W] into adjacent neighbourhoods; returns [n, C · height · width]."""
    return nn.functional.unfold(maps, size, stride=size).movedim(1, -1).flatten(0, 1)


@cache
def _encoder() -> nn.Module:
    """The encoder after a brief training on the bundled photographs, which takes about half a minute."""
    recipe = Recipe(dim=WIDTH, steps=STEPS)
    model = build("none", dim=WIDTH, codebook_size=recipe.codebook_size, seed=recipe.seed)
    batches = training_batches(data.bundled().train, recipe.batch_size, recipe.seed)
    train(model, batches, recipe, lambda step, mse, codes_used: None)
    return model.encoder.eval()
