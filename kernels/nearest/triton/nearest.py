"""The nearest code on matrix units, exactly: equations (8) to (12) of kernels/nearest/README.md.

Codebook and rows are packed as float16 (frame.py, pack.py) and scored (search.py). Of each row the best groups of
codes are kept, and one kernel decides within these (settle.py, candidates.py). Rows whose nearest code might be in
yet another group are compared with all codes in float64 (exhaustive.py). These are seven launches: two for the
frame of the codes, pack, search and settle, and two for the rows that are left.

PyTorch's precision of float32 matrix products (precision.py) selects the mode, for inputs of up to 32 bits:

- "highest": every row is certified by a bound on the error or compared with all codes: as exact as the reference.
- "high", "medium": the nearest code by scores of rounded vectors, without a certificate.

float64 inputs are compared in float64 in every mode.

Searches that have been measured (tuning.py) may skip codes that are too far from all rows of a tile (pruned/).
They take three more launches and a sort.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.exhaustive import every_row, exhaustive, no_rows
from quantizers.kernels.nearest.triton.frame import frame
from quantizers.kernels.nearest.triton.lookup import Found, empty_found
from quantizers.kernels.nearest.triton.pack import pack
from quantizers.kernels.nearest.triton.precision import is_exact
from quantizers.kernels.nearest.triton.pruned.order import orders
from quantizers.kernels.nearest.triton.pruned.search import pruned_search, pruned_tiles, pruning, rows_at_a_time
from quantizers.kernels.nearest.triton.search import search
from quantizers.kernels.nearest.triton.settle import settle
from quantizers.kernels.nearest.triton.tiles import BLOCK_N, Search, bound, layout, round_up, tiles_of, tuned

CHUNK = 2**26  # columns in packed rows at a time: 128 MiB
HEADS = 65535  # in one grid


def settings() -> tuple[object, ...]:
    """What the launches of a search depend on beside its arguments."""
    return is_exact(), tuple(tuned.items()), tuple(orders)


@replayed(settings)
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


@replayed(settings)
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
    heads, n, d = x.shape
    properties, exact = search_of(x, codebook), is_exact()
    cut = layout(d, properties.device)
    sizes, limit = tiles_of(properties, cut), bound(cut) if exact else None
    packed_codes, order = None, None
    chunk = max(1, CHUNK // (heads * cut.width))
    leaves = pruning(codebook, where, properties)
    if leaves is not None:
        sizes, chunk = pruned_tiles(sizes, leaves.order.leaf), min(chunk, rows_at_a_time(leaves))
    for first in range(0, n, chunk):
        rows = x[:, first : first + chunk]
        left = no_rows(rows)
        if leaves is None:
            packed, packed_codes = pack(codebook, rows, where, cut, sizes, left.number, packed_codes)
            minima = search(packed, packed_codes, cut, sizes)
        else:
            packed, packed_codes, minima, order = pruned_search(
                rows, codebook, where, leaves, cut, sizes, left.number, packed_codes
            )
        settle(minima, packed, packed_codes, rows, codebook, where, limit, cut, sizes, left, found, first, order)
        if exact:
            exhaustive(rows, codebook, where, left, found, first)


def search_of(x: Tensor, codebook: Tensor) -> Search:
    """Return the properties that determine the tiles of the search of these tensors."""
    heads, n, d = x.shape
    return Search(heads * round_up(n, BLOCK_N), codebook.shape[1], d, device_properties(x.device))
