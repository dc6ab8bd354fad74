"""Data sets for a search: latents, patches of photographs, and random vectors as the opposite extreme."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import data
from benchmarks.crops import random_crops
from benchmarks.kernels.latents import Latents
from benchmarks.kernels.shapes import Shape, draw

VQ_LATENTS, SIMVQ_LATENTS, PATCHES, NORMAL = "VQ latents", "SimVQ latents", "photo patches", "N(0, 1)"
SIDE = 8  # pixels of a patch


@dataclass(frozen=True)
class RealData:
    """Vectors and a codebook. `load` returns both; it may keep what it made in the folder that it gets."""

    name: str
    shape: Shape
    load: Callable[[Path], tuple[Tensor, Tensor]]

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


def latents(name: str, made: Latents) -> RealData:
    def load(folder: Path) -> tuple[Tensor, Tensor]:
        stored = made.load(folder)
        return stored["x"], stored["codebook"]

    return RealData(name, made.shape, load)


def fewer(given: RealData, n: int) -> RealData:
    """Return the first `n` vectors of the data, and its whole codebook."""

    def load(folder: Path) -> tuple[Tensor, Tensor]:
        x, codebook = given.load(folder)
        return x[:n].contiguous(), codebook

    return RealData(given.name, replace(given.shape, n=n), load)


def patches(shape: Shape) -> RealData:
    """Return patches of photographs in their first D principal components, as vectors and as codes."""
    return RealData(PATCHES, shape, lambda folder: draw_patches(shape))


def normal(shape: Shape) -> RealData:
    return RealData(NORMAL, shape, lambda folder: draw(shape, torch.device("cpu")))


def draw_patches(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return vectors [N, D] and codes [K, D]: different patches of SIDE × SIDE pixels in three colours."""
    generator = torch.Generator().manual_seed(0)
    pixels = random_crops(data.bundled().train, shape.n + shape.k, generator, SIDE).flatten(1)
    pixels -= pixels.mean(0)
    _, axes = torch.linalg.eigh((pixels.T @ pixels).double())  # in the order of rising variance
    components = pixels @ axes.flip(1)[:, : shape.d].float()
    x, codebook = components.split([shape.n, shape.k])
    return x.contiguous(), codebook.contiguous()


VQ_VARIANT = "vq:warm_start=True:replace=dead"
VQ_8192 = Latents(VQ_VARIANT, Shape(16384, 8192, 32), steps=120)
VQ_65536 = Latents(VQ_VARIANT, Shape(4096, 65536, 32), steps=200, further=196608)
VQ_TRAININGS = (
    *(Latents(VQ_VARIANT, Shape(16384, 1024, d), steps=100) for d in (8, 32)),
    Latents(VQ_VARIANT, Shape(16384, 8192, 8), steps=120),
    VQ_8192,
    Latents(VQ_VARIANT, Shape(4096, 65536, 8), steps=150),
    VQ_65536,
)
SIMVQ_TRAININGS = (
    Latents("simvq", Shape(16384, 8192, 32), steps=300),
    Latents("simvq", Shape(4096, 65536, 32), steps=120),
)
TRAININGS = (*VQ_TRAININGS, *SIMVQ_TRAININGS)

DATA = (
    *(latents(VQ_LATENTS, each) for each in VQ_TRAININGS),
    *(latents(SIMVQ_LATENTS, each) for each in SIMVQ_TRAININGS),
    *(patches(Shape(16384, 8192, d)) for d in (16, 64)),
    *(normal(Shape(16384, 8192, d)) for d in (4, 8, 32)),
)
STEPPED = tuple(latents(VQ_LATENTS, each) for each in (VQ_8192, VQ_65536))  # whole training steps
LOADED = fewer(STEPPED[0], 4096)  # beside busy processes
GROWING = VQ_65536  # its learned codes and further latents, in the picture
