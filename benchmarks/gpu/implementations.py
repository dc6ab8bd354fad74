"""The one place that knows where the kernels are: the registered operations, and the inner steps of the search."""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import chosen_implementation, use_implementation
from quantizers.kernels.common.triton.device import device_properties
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.levels.operation import round_levels
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.decide import _ACCUMULATION, _ROUNDOFF, _SPLIT, Undecided, decide
from quantizers.kernels.nearest.triton.groups import tiles as group_tiles
from quantizers.kernels.nearest.triton.groups.exhaustive import no_rows
from quantizers.kernels.nearest.triton.groups.nearest import nearest_code as group_nearest_code
from quantizers.kernels.nearest.triton.groups.pack import empty_codes, empty_rows
from quantizers.kernels.nearest.triton.groups.pack import pack as group_pack
from quantizers.kernels.nearest.triton.groups.search import search as group_search
from quantizers.kernels.nearest.triton.groups.settle import settle
from quantizers.kernels.nearest.triton.lookup import empty_found
from quantizers.kernels.nearest.triton.nearest import search_of
from quantizers.kernels.nearest.triton.pack import frame, pack
from quantizers.kernels.nearest.triton.precision import matmul_mode
from quantizers.kernels.nearest.triton.search import search
from quantizers.kernels.nearest.triton.tiles import BLOCK_N, round_up, tiles_of
from quantizers.kernels.rotation.operation import rotate_grad
from quantizers.kernels.soft.operation import soft_codes
from quantizers.kernels.sums.operation import code_sums, ema_code_sums

__all__ = [
    "ACCUMULATION",
    "BLOCK_N",
    "ROUNDOFF",
    "SPLIT",
    "Decided",
    "Scored",
    "chosen_implementation",
    "code_sums",
    "decided",
    "ema_code_sums",
    "group_nearest_code",
    "highest_score",
    "left_by_groups",
    "nearest_code",
    "nearest_lookup",
    "rotate_grad",
    "round_levels",
    "scored",
    "soft_codes",
    "use_implementation",
]

# Of equation (10): u, what a matrix unit loses in a sum per channel, and what splitting, centring and the last
# subtraction lose, both in units of u·a·R.
ROUNDOFF, ACCUMULATION, SPLIT = _ROUNDOFF.value, _ACCUMULATION.value, _SPLIT.value


class Decided(NamedTuple):
    """What the certificate says of each row before the rescan."""

    certain: Tensor  # [N] bool
    indices: Tensor  # [N] int64, the nearest code of a certain row


class Scored(NamedTuple):
    """The best score of each row as the matrix units compute it, and the terms of the bound on its error.

    The bound is (10) of kernels/nearest/README.md. Scores, lengths and radius are of the packed rows and codes,
    whose halves add up exactly in float64: the error is that of products and sums, without that of splitting.
    """

    score: Tensor  # [N] float32, as computed
    exact: Tensor  # [N] float64, of the same code
    product: Tensor  # [N] float64, a·R of (10)
    square: Tensor  # [N] float64, t·R² of (10)
    channels: int  # S·D' of (10)


def decided(x: Tensor, codebook: Tensor) -> Decided:
    """Search [N, D] among [K, D] in the exact mode, up to the certificate."""
    _check_exact()
    vectors, codes, rows = x[None], codebook[None], range(len(x))
    cut, where = tiles_of(search_of(vectors, codes)), frame(codes)
    packed, packed_codes = pack(vectors, codes, where, cut, "exact", rows)
    partial = search(packed, packed_codes, cut, "exact")
    found = empty_found(vectors, codes, codes=False)
    undecided = Undecided(torch.empty(len(x), dtype=torch.int64, device=x.device), where.undecided)
    resident = x.shape[1] <= cut.block_d
    decide(partial, vectors, codes, where, packed, rows, found, undecided, resident=resident)
    certain = torch.ones(len(x), dtype=torch.bool, device=x.device)
    certain[undecided.rows[: int(undecided.number)]] = False
    return Decided(certain, found.indices[0])


def left_by_groups(x: Tensor, codebook: Tensor) -> float:
    """Return the share of rows [N, D] that an exact search by groups compares with all codes [K, D] in float64."""
    _check_exact()
    vectors, codes = x[None], codebook[None]
    device = device_properties(x.device)
    cut = group_tiles.layout(x.shape[1], "exact", device)
    rows = round_up(len(x), group_tiles.BLOCK_N)
    sizes = group_tiles.tiles(rows, len(codebook), cut, device)
    where, left = frame(codes), no_rows(vectors)
    packed_codes = empty_codes(codes, round_up(len(codebook), sizes.block_k), cut)
    packed = empty_rows(vectors, round_up(len(x), sizes.block_n), cut)
    group_pack(codes, packed_codes, vectors, packed, where, cut, left.number, with_codes=True)
    minima = group_search(packed, packed_codes, cut, sizes)
    found, limit = empty_found(vectors, codes, codes=False), group_tiles.bound(cut)
    settle(minima, packed, packed_codes, vectors, codes, where, limit, sizes, left, found, 0)
    return int(left.number.sum()) / len(x)


def scored(x: Tensor, codebook: Tensor) -> Scored:
    """Score [N, D] against [K, D] in the exact mode; N is a multiple of BLOCK_N."""
    _check_exact()
    vectors, codes = x[None], codebook[None]
    cut = tiles_of(search_of(vectors, codes))._replace(splits=1)
    packed, packed_codes = pack(vectors, codes, frame(codes), cut, "exact", range(len(x)))
    found = search(packed, packed_codes, cut, "exact")
    left = packed.high[0].double() + packed.low[0].double()
    right = (packed_codes.high[0].double() + packed_codes.low[0].double())[: len(codebook)]
    factor, chosen = packed.factor[0].double(), right[found.lowest[0, 0].long()]
    radius = right.norm(dim=1).max()
    sums = 1 if left.shape[1] == cut.block_d else 3
    return Scored(
        score=found.best[0, 0],
        exact=factor * 0.5 * chosen.square().sum(1) + (left * chosen).sum(1),  # rows are packed as −x
        product=left.norm(dim=1) * radius,
        square=factor * radius**2,
        channels=sums * left.shape[1],
    )


def _check_exact() -> None:
    if matmul_mode() != "exact":
        precision = torch.get_float32_matmul_precision()
        raise ValueError(f"the float32 matmul precision is {precision!r}, expected 'highest'")
