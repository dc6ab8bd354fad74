"""How often an index is not the nearest code's, on easy and on difficult data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

VECTORS = 4096
SLACK = 1e-12  # relative: far above the rounding of a float64 distance, far below that of a float32 one
BLOCK = 2**22  # elements in a block of distances

Draw = Callable[[Generator, int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Data:
    """Vectors and K codes with D channels. `draw` returns both, from a generator, K and D."""

    name: str
    k: int
    d: int
    draw: Draw

    def tensors(self, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return x [VECTORS, D] and a codebook [K, D], float32."""
        x, codebook = self.draw(torch.Generator().manual_seed(seed), self.k, self.d)
        return x.to(device), codebook.to(device)


def cluster(mean: float, spread: float) -> Draw:
    """Return a function that draws vectors and codes from one normal distribution."""

    def draw(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(VECTORS, d, generator=generator)
        codebook = torch.randn(k, d, generator=generator)
        return mean + spread * x, mean + spread * codebook

    return draw


def two_clusters(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Half of the vectors and codes around 100 and half around −100, with a spread of 0.1: no single centre
    helps."""
    x, codebook = cluster(0, 0.1)(generator, k, d)
    for tensor in (x, codebook):
        tensor[::2] += 100
        tensor[1::2] -= 100
    return x, codebook


def tiny(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Codes from U(−1/K, 1/K), a common initialization; normal vectors."""
    x = torch.randn(VECTORS, d, generator=generator)
    return x, (2 * torch.rand(k, d, generator=generator) - 1) / k


def collapsed(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Half of the codes are equal."""
    x, codebook = cluster(0, 1)(generator, k, d)
    codebook[: k // 2] = codebook[0]
    return x, codebook


DATA = (
    Data("normal", 8192, 8, cluster(0, 1)),
    Data("normal", 1024, 64, cluster(0, 1)),
    Data("mean 100, spread 0.1", 1024, 64, cluster(100, 0.1)),
    Data("mean 1, spread 0.01", 1024, 64, cluster(1, 0.01)),
    Data("two clusters at ±100, spread 0.1", 1024, 64, two_clusters),
    Data("codes U(−1/K, 1/K)", 1024, 64, tiny),
    Data("half of the codes equal", 1024, 64, collapsed),
)


def right_rows(indices: Tensor, x: Tensor, codebook: Tensor) -> Tensor:
    """Return whether the code of each index [N] is the nearest, up to a relative SLACK in float64 distance.

    An index outside 0 … K − 1 is wrong. Any of several equally near codes is right.
    """
    in_range = (indices >= 0) & (indices < len(codebook))
    chosen = indices.long().where(in_range, 0).to(x.device)
    near = torch.empty(len(x), dtype=torch.bool, device=x.device)
    for rows, distances in _distances(x, codebook):
        found = distances.gather(1, chosen[rows, None])[:, 0]
        near[rows] = found <= distances.amin(1) * (1 + SLACK)
    return near & in_range.to(x.device)


def wrong_share(indices: Tensor, x: Tensor, codebook: Tensor) -> float:
    """Return the share of indices that are not `right_rows`."""
    return 1 - int(right_rows(indices, x, codebook).sum()) / len(x)


def _distances(x: Tensor, codebook: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows and their distances to all codes [R, K], from differences in float64."""
    step = max(1, BLOCK // max(codebook.shape))
    codes = codebook.double()
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        block = x[rows].double()
        yield rows, torch.cdist(block, codes, compute_mode="donot_use_mm_for_euclid_dist")
