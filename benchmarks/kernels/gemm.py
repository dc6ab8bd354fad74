"""The matrix product that a search contains, in tiles whose results are discarded. A search that uses only the
vectors and codes cannot be faster.
"""

import torch
from torch import Tensor

from benchmarks.kernels.rivals import Rival, Work

MM = "GEMM (torch.mm)"
ONEDNN = "GEMM (oneDNN)"

# Rows and codes of a tile. On a CPU the result stays in the cache; a GPU needs enough work to fill the chip.
TILES = {"cpu": (2048, 1024), "cuda": (16384, 16384)}


def prepare_mm(x: Tensor, codebook: Tensor) -> Work:
    """Prepare torch.mm into one buffer."""
    rows, codes = TILES[x.device.type]
    buffer = x.new_empty(min(rows, len(x)) * min(codes, len(codebook)))

    def run() -> tuple[Tensor, ...]:
        for vectors in x.split(rows):
            for tile in codebook.split(codes):
                result = buffer[: len(vectors) * len(tile)].view(len(vectors), len(tile))
                torch.mm(vectors, tile.T, out=result)
        return ()

    return run


def has_onednn() -> bool:
    """Return whether this build of torch has the operator, which is private to torch."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def prepare_onednn(x: Tensor, codebook: Tensor) -> Work:
    """Prepare oneDNN's product, which uses AVX-512 where MKL may not."""
    rows, codes = TILES["cpu"]

    def run() -> tuple[Tensor, ...]:
        for vectors in x.split(rows):
            for tile in codebook.split(codes):
                torch.ops.mkldnn._linear_pointwise(vectors, tile, None, "none", [], "")
        return ()

    return run


GEMMS = (Rival(MM, prepare_mm), *([Rival(ONEDNN, prepare_onednn, devices=("cpu",))] if has_onednn() else []))
