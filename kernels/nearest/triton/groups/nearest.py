"""The nearest code by minima of groups of codes, exactly: equations (13) to (16) of README.md.

The other loop (../nearest.py) tracks the best score of every column of codes; this one tracks the two best groups
of codes and the third score (search.py), and decides within these groups in float64 (settle.py). Rows whose
nearest code might be in a third group are compared with all codes (exhaustive.py). These are seven launches: two
for the frame of the codes, pack, search and settle, and two for the rows that are left.

`torch.get_float32_matmul_precision()` selects the mode, for inputs of up to 32 bits:

- "highest": products of split halves, every row certain: as exact as the reference.
- "high": one tf32 product of centred values; the nearest code of the best group.
- "medium": one bfloat16 product of centred values; the nearest code of the best group.

float64 inputs are compared in float64 in every mode.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.groups.exhaustive import every_row, exhaustive, no_rows
from quantizers.kernels.nearest.triton.groups.pack import empty_codes, empty_rows, pack
from quantizers.kernels.nearest.triton.groups.search import search
from quantizers.kernels.nearest.triton.groups.settle import settle
from quantizers.kernels.nearest.triton.groups.tiles import BLOCK_N, bound, layout, tiles
from quantizers.kernels.nearest.triton.lookup import Found, empty_found
from quantizers.kernels.nearest.triton.pack import frame
from quantizers.kernels.nearest.triton.precision import matmul_mode
from quantizers.kernels.nearest.triton.tiles import round_up

CHUNK = 2**25  # columns in packed rows at a time: 128 MiB in float32
HEADS = 65535  # in one grid


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
    indices, _, squared_distance = _search(x, codebook, codes=False)
    return indices, squared_distance


@torch.no_grad()
def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `nearest_code` with the chosen codes [H, N, D] in float32 (float64 if an input is); zero where the
    index is −1.

    Returns:
        indices [H, N], codes [H, N, D], squared_distance [H, N].
    """
    return _search(x, codebook, codes=True)


def _search(x: Tensor, codebook: Tensor, *, codes: bool) -> Found:
    found = empty_found(x, codebook, codes=codes)
    if x.shape[0] * x.shape[1] > 0:
        for first in range(0, len(x), HEADS):
            some = slice(first, first + HEADS)
            _search_heads(x[some], codebook[some], Found(*(result[some] for result in found)))
    return found


def _search_heads(x: Tensor, codebook: Tensor, found: Found) -> None:
    where = frame(codebook)
    if compute_dtype(x, codebook) == torch.float64:
        exhaustive(x, codebook, where, every_row(x), found)
        return
    (heads, n, d), size = x.shape, codebook.shape[1]
    mode, device = matmul_mode(), device_properties(x.device)
    cut = layout(d, mode, device)
    sizes = tiles(heads * round_up(n, BLOCK_N), size, cut, device)
    limit = bound(cut) if mode == "exact" else None
    packed_codes = empty_codes(codebook, round_up(size, sizes.block_k), cut)
    chunk = max(1, CHUNK // (heads * cut.columns))
    for first in range(0, n, chunk):
        rows = x[:, first : first + chunk]
        left = no_rows(rows)
        packed = empty_rows(rows, round_up(rows.shape[1], sizes.block_n), cut)
        pack(codebook, packed_codes, rows, packed, where, cut, left.number, with_codes=first == 0)
        minima = search(packed, packed_codes, cut, sizes)
        settle(minima, packed, packed_codes, rows, codebook, where, limit, sizes, left, found, first)
        if mode == "exact":
            exhaustive(rows, codebook, where, left, found, first)
