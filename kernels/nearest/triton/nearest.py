"""The nearest code on matrix units, exactly: equations (8) to (12) of kernels/nearest/README.md.

Codebook and rows are packed (pack.py) and scored (search.py). One kernel decides which rows the scores settle, and
looks up their codes and distances (decide.py). The other rows are scanned again in float64 (rescan.py).

PyTorch's precision of float32 matrix products (precision.py) selects the mode, for inputs of up to 32 bits:

- "highest": tf32 products of split halves, every row certified or scanned again: as exact as the reference.
- "high": one tf32 product of centred values, without a certificate.
- "medium": one bfloat16 product of centred values, without a certificate.

float64 inputs are scanned in float64 in every mode, which is exact and slow.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.decide import Undecided, decide
from quantizers.kernels.nearest.triton.lookup import Found, empty_found
from quantizers.kernels.nearest.triton.pack import frame, pack
from quantizers.kernels.nearest.triton.precision import matmul_mode
from quantizers.kernels.nearest.triton.rescan import every_row, rescan
from quantizers.kernels.nearest.triton.search import search
from quantizers.kernels.nearest.triton.tiles import BLOCK_N, Search, round_up, tiles_of

CHUNK = 2**25  # elements in packed rows at a time: 256 MiB of split halves


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of each vector in Euclidean distance.

    Args:
        x: [H, N, D] vectors, any floating dtype, finite or not, contiguous or not.
        codebook: [H, K, D] codes, K ≥ 1. A code that is not finite is never chosen.

    Returns:
        indices: [H, N] int64; −1 where a vector (or every code) is not finite. With "highest" or float64, the
            smallest exact distance up to a relative error of (2D + 16)·2⁻⁵³, and the lowest index of equal ones.
        squared_distance: [H, N], the difference form Σ(x − e)² in float32 (float64 if an input is float64); NaN
            where the index is −1.
    """
    found = _search(x, codebook, codes=False)
    return found.indices, found.squared_distance


@torch.no_grad()
def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `nearest_code` with the chosen codes [H, N, D] in float32 (float64 if an input is); zero where the
    index is −1.

    Returns:
        indices [H, N], codes [H, N, D], squared_distance [H, N].
    """
    found = _search(x, codebook, codes=True)
    return found.indices, found.codes, found.squared_distance


def _search(x: Tensor, codebook: Tensor, *, codes: bool) -> Found:
    found = empty_found(x, codebook, codes=codes)
    heads, n, d = x.shape
    if n * heads == 0:
        return found
    if compute_dtype(x, codebook) == torch.float64:
        rescan(x, codebook, every_row(x), found)
        return found
    cut, mode = tiles_of(search_of(x, codebook)), matmul_mode()
    where, resident = frame(codebook), d <= cut.block_d
    exact = mode == "exact"
    undecided = Undecided(x.new_empty((heads * n,), dtype=torch.int64), where.undecided) if exact else None
    chunk = max(1, CHUNK // (heads * round_up(d, cut.block_d)))
    packed_codes = None
    for start in range(0, n, chunk):
        rows = range(start, min(start + chunk, n))
        packed, packed_codes = pack(x, codebook, where, cut, mode, rows, packed_codes)
        partial = search(packed, packed_codes, cut, mode)
        decide(partial, x, codebook, where, packed, rows, found, undecided, resident=resident)
    if undecided:
        rescan(x, codebook, undecided, found)
    return found


def search_of(x: Tensor, codebook: Tensor) -> Search:
    """Return the properties that determine the tiles of the search of these tensors."""
    heads, n, d = x.shape
    rows = heads * round_up(n, BLOCK_N)
    return Search(rows, codebook.shape[1], d, matmul_mode(), device_properties(x.device))
