"""The nearest code on matrix units, exactly: equations (20) to (24) of kernels/nearest/README.md.

Codebook and rows are packed (pack.py) and scored (search.py). Rows without a certificate are scanned again in
float64 (rescan.py). A last kernel gathers the codes and computes the distances (lookup.py).

PyTorch's precision of float32 matrix products (precision.py) selects the mode, for inputs of up to 32 bits:

- "highest": tf32 products of split halves, every row certified or scanned again: as exact as the reference.
- "high": one tf32 product of centred values, without a certificate.
- "medium": one bfloat16 product of centred values, without a certificate.

float64 inputs are scanned in float64 in every mode, which is exact and slow.
"""

import torch
import triton
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.lookup import lookup
from quantizers.kernels.nearest.triton.pack import Frame, Packed, frame, pack
from quantizers.kernels.nearest.triton.precision import Mode, matmul_mode
from quantizers.kernels.nearest.triton.rescan import every_row, rescan
from quantizers.kernels.nearest.triton.search import decide, search
from quantizers.kernels.nearest.triton.tiles import BLOCK_N, Search, Tiles, device_properties, tiles_of

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
    indices, _, squared_distance = lookup(x, codebook, _search(x, codebook), codes=False)
    return indices, squared_distance


@torch.no_grad()
def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `nearest_code` with the chosen codes [H, N, D] in float32 (float64 if an input is); zero where the
    index is −1.

    Returns:
        indices [H, N], codes [H, N, D], squared_distance [H, N].
    """
    return lookup(x, codebook, _search(x, codebook), codes=True)


def _search(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the index [H, N] int32, negative or UNDECIDED without one."""
    heads, n, d = x.shape
    size = codebook.shape[1]
    if n * heads == 0:
        return x.new_empty((heads, n), dtype=torch.int32)
    if compute_dtype(x, codebook) == torch.float64:
        decision = every_row(x)
        rescan(x, codebook, decision)
        return decision.indices
    cut, mode = tiles_of(search_of(x, codebook)), matmul_mode()
    where, width = frame(codebook), triton.cdiv(d, cut.block_d) * cut.block_d
    codes = pack(codebook, where, _round_up(size, cut.block_k), width, mode, is_x=False)
    chunk = max(1, CHUNK // (heads * width))
    found = [_search_rows(rows, codebook, where, codes, cut, mode) for rows in x.split(chunk, 1)]
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def search_of(x: Tensor, codebook: Tensor) -> Search:
    """Return the properties that determine the tiles of the search of these tensors."""
    heads, n, d = x.shape
    rows = heads * _round_up(n, BLOCK_N)
    return Search(rows, codebook.shape[1], d, matmul_mode(), device_properties(x.device))


def _search_rows(x: Tensor, codebook: Tensor, where: Frame, codes: Packed, cut: Tiles, mode: Mode) -> Tensor:
    n, width = x.shape[1], codes.high.shape[2]
    packed = pack(x, where, _round_up(n, cut.block_n), width, mode, is_x=True)
    certify = mode == "exact"
    partial = search(packed, codes, cut, mode)
    decision = decide(partial, packed, codes, n, resident=width == cut.block_d, certify=certify)
    if certify:
        rescan(x, codebook, decision)
    return decision.indices


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
