"""The one place that knows where the kernels are: the registered operations, and the inner steps of the search."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.constants import ROUNDOFF_FLOAT32
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.levels.operation import round_levels
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.exhaustive import Rows, no_rows
from quantizers.kernels.nearest.triton.frame import Frame, frame
from quantizers.kernels.nearest.triton.lookup import empty_found
from quantizers.kernels.nearest.triton.nearest import search_of
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows, pack
from quantizers.kernels.nearest.triton.precision import ACCUMULATION, is_exact
from quantizers.kernels.nearest.triton.pruned.order import orders
from quantizers.kernels.nearest.triton.search import search
from quantizers.kernels.nearest.triton.settle import settle
from quantizers.kernels.nearest.triton.tiles import BLOCK_N, Layout, Tiles, bound, layout, tiles_of, tuned
from quantizers.kernels.nearest.triton.tuning import order_for, tune, use
from quantizers.kernels.rotation.operation import rotate_grad
from quantizers.kernels.soft.operation import soft_codes
from quantizers.kernels.sums.operation import code_sums, ema_code_sums

__all__ = [
    "ACCUMULATION",
    "BLOCK_N",
    "ROUNDOFF",
    "Decided",
    "LoopTiles",
    "PackedSearch",
    "Scored",
    "code_sums",
    "decided",
    "ema_code_sums",
    "highest_score",
    "k_nearest_codes",
    "measured_ways",
    "nearest_code",
    "nearest_lookup",
    "pruned",
    "rotate_grad",
    "round_levels",
    "scored",
    "soft_codes",
    "use_implementation",
]

ROUNDOFF = ROUNDOFF_FLOAT32  # u of equation (10)
LARGEST_TILE = 256  # rows, or codes of a step


@contextlib.contextmanager
def pruned(x: Tensor, codebook: Tensor) -> Iterator[None]:
    """Let searches like that of x [H, N, D] skip codes that are too far, in the order of these codes [H, K, D]."""
    properties = search_of(x, codebook)
    orders[properties] = order_for(properties, codebook)
    try:
        yield
    finally:
        del orders[properties]


def measured_ways(x: Tensor, codebook: Tensor, repetitions: int) -> tuple[dict[str, float], dict[str, int]]:
    """Search [H, N, D] among [H, K, D] in every way that `tune` knows. Nothing stays tuned.

    Returns: by way, the milliseconds, and the rows whose index or distance is not, bit for bit, that of the first.
    """
    times, properties = tune(x, codebook, repetitions), search_of(x, codebook)
    order = order_for(properties, codebook)
    milliseconds: dict[str, float] = {}
    different: dict[str, int] = {}
    first: tuple[Tensor, Tensor] | None = None
    try:
        for way in times:
            use(properties, way, order)
            found = nearest_code(x, codebook)
            first = first or found
            changed = (found[0] != first[0]) | (found[1] != first[1])
            name = f"{way.programs} programs a multiprocessor, {'pruned' if way.pruned else 'all codes'}"
            milliseconds[name], different[name] = times[way], int(changed.sum())
    finally:
        tuned.pop(properties, None)
        orders.pop(properties, None)
    return milliseconds, different


class Decided(NamedTuple):
    """What the best groups of codes say of each row."""

    certain: Tensor  # [N] bool; the other rows are compared with all codes in float64
    indices: Tensor  # [N] int64, the nearest code of a certain row


class Scored(NamedTuple):
    """The smallest score of each row as the matrix units compute it, and the terms of the bound on its error.

    The bound is (10) of kernels/nearest/README.md. Scores, lengths and radius are of the packed rows and codes:
    the error is that of the sums, without that of rounding vectors to float16.
    """

    score: Tensor  # [N] float32, as computed
    exact: Tensor  # [N] float64
    product: Tensor  # [N] float64, the product of the longest row's and the longest code's length
    square: Tensor  # [N] float64, t·R² of (10)
    columns: int  # of the product


class _Packed(NamedTuple):
    """Everything that a search of one head needs."""

    layout: Layout
    tiles: Tiles
    frame: Frame
    rows: PackedRows
    codes: PackedCodes
    left: Rows


class LoopTiles(NamedTuple):
    """The tile sizes of the loop that may be chosen at will."""

    rows: int
    codes: int  # per step
    warps: int
    columns: int  # per step
    stages: int

    def __str__(self) -> str:
        tile = f"{self.rows} rows, {self.codes} codes, {self.columns} columns"
        return f"{tile}, {self.warps} warps, {self.stages} stages"


class PackedSearch:
    """The loop of a search of [N, D] among [K, D], after packing, in tiles of any size up to LARGEST_TILE."""

    def __init__(self, x: Tensor, codebook: Tensor) -> None:
        self._packed = _pack(x, codebook, multiple=LARGEST_TILE)
        self.width, self.resident = self._packed.layout.width, self._packed.layout.resident

    @property
    def chosen(self) -> LoopTiles:
        """The tile sizes that the launcher chooses."""
        sizes = self._packed.tiles
        return LoopTiles(sizes.block_n, sizes.block_k, sizes.warps, sizes.block_d, sizes.stages)

    def run(self, sizes: LoopTiles) -> tuple[Tensor, ...]:
        """Run the loop. Raises: what the compiler and the driver raise for impossible sizes."""
        rows, codes, warps, columns, stages = sizes
        tiles = Tiles(rows, codes, columns, warps, stages, self._packed.tiles.splits)
        return search(self._packed.rows, self._packed.codes, self._packed.layout, tiles)


def decided(x: Tensor, codebook: Tensor) -> Decided:
    """Search [N, D] among [K, D] in the exact mode, up to the rows that are left to the exhaustive search."""
    packed, found = _pack(x, codebook), empty_found(x[None], codebook[None], codes=False)
    minima = search(packed.rows, packed.codes, packed.layout, packed.tiles)
    inputs = packed.rows, packed.codes, x[None], codebook[None], packed.frame
    settle(minima, *inputs, bound(packed.layout), packed.layout, packed.tiles, packed.left, found, 0)
    certain = torch.ones(len(x), dtype=torch.bool, device=x.device)
    certain[packed.left.listed[0, : int(packed.left.number)]] = False
    return Decided(certain, found.indices[0])


def scored(x: Tensor, codebook: Tensor) -> Scored:
    """Score [N, D] against [K, D]; N is a multiple of BLOCK_N."""
    packed = _pack(x, codebook)
    found = search(packed.rows, packed.codes, packed.layout, packed.tiles._replace(splits=1))
    left, right = packed.rows.columns[0].double(), packed.codes.columns[0, : len(codebook)].double()
    scores, factor = left @ right.T, packed.rows.factor[0].double()  # rows are packed as −x
    if not packed.layout.bias_columns:
        scores += factor[:, None] * packed.codes.half_squares[0, : len(codebook)].double()
    width = x.shape[1]
    radius = right[:, :width].norm(dim=1).max()
    return Scored(
        score=found.scores[0, 0],
        exact=scores.amin(1),
        product=left[:, :width].norm(dim=1) * radius,
        square=factor * radius**2,
        columns=packed.layout.width,
    )


def _pack(x: Tensor, codebook: Tensor, multiple: int = 1) -> _Packed:
    """Pack, with rows and codes padded to a multiple of their tiles and of `multiple`, a power of two."""
    if not is_exact():
        precision = torch.get_float32_matmul_precision()
        raise ValueError(f"the float32 matmul precision is {precision!r}, expected 'highest'")
    vectors, codes = x[None], codebook[None]
    properties = search_of(vectors, codes)
    cut = layout(x.shape[1], properties.device)
    sizes, where, left = tiles_of(properties, cut), frame(codes), no_rows(vectors)
    padding = sizes._replace(block_n=max(sizes.block_n, multiple), block_k=max(sizes.block_k, multiple))
    return _Packed(cut, sizes, where, *pack(codes, vectors, where, cut, padding, left.number), left)
