"""Sizes of a search, and vectors of those sizes."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.errors import InputError

LARGEST = 2**31  # largest size, so that a typing error is reported instead of exhausting the memory


@dataclass(frozen=True)
class Shape:
    """N vectors against K codes, with D channels each."""

    n: int
    k: int
    d: int

    def __str__(self) -> str:
        return f"{self.n}x{self.k}x{self.d}"

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix product of all vectors with all codes."""
        return 2 * self.n * self.k * self.d


SHAPES = (
    Shape(8192, 512, 64),
    Shape(8192, 1024, 256),
    Shape(32768, 8192, 8),
    Shape(16384, 8192, 32),
    Shape(16384, 16384, 64),
    Shape(4096, 65536, 16),
    Shape(65536, 1024, 4),
)
CUDA_SHAPES = (*SHAPES, Shape(262144, 16384, 256), Shape(262144, 262144, 32))


def parse(text: str) -> Shape:
    """Parse "8192x512x64" as N, K, D. Raises: InputError."""
    if re.fullmatch(r"\d{1,10}x\d{1,10}x\d{1,10}", text):
        sizes = [int(size) for size in text.split("x")]
        if all(1 <= size <= LARGEST for size in sizes):
            return Shape(*sizes)
    raise InputError(f"--shapes: got {text!r}; expected N, K and D from 1 to {LARGEST}, such as 8192x512x64")


def draw(shape: Shape, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return vectors [N, D] and codes [K, D] from a standard normal distribution, float32, the same on every
    device.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape.n, shape.d, generator=generator)
    codebook = torch.randn(shape.k, shape.d, generator=generator)
    return x.to(device), codebook.to(device)
