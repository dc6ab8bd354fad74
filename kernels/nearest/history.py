"""When a search leaves codes out: decided from the work that earlier searches of the codebook needed.

Work is counted in multiply-adds of the search through all codes. The decision affects the time of a search and
never its result.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from quantizers.kernels.nearest.tree import SAMPLE, Order

LEAST_CODES = 512  # in smaller codebooks there is nothing to gain
PATIENCE = 20.0  # an attempt costs at most this part, 5 %, of the work since the last one
MOST_PATIENCE = 16 * PATIENCE
WORTH = 0.85  # of the work of all codes that a search may need; its work is known to about a seventh

# Work besides the D multiply-adds of a pair of row and code, fitted to times on Zen 3 (AVX2), D from 2 to 128.
PAIR = 1  # of row and code, in the search through all codes
ROW, ROW_CHANNEL = 4400, 210  # a row, in the search that leaves codes out
ROW_LEAF, ROW_LEAF_CHANNEL = 160, 21  # a scored pair of row and leaf
TILE_LEAF = 2400  # a pair of tile and leaf whose box is compared with every row
CODE, CODE_CHANNELS = 8000, 12  # a code in a new order; a code of the sample, per pair of channels


class Shape(NamedTuple):
    """The sizes of a search."""

    rows: int
    size: int
    dim: int

    def all_codes(self) -> float:
        """Return the work of comparing all codes."""
        return float(self.rows * self.size * (self.dim + PAIR))

    def new_order(self) -> float:
        """Return the work of a new order of the codes."""
        return float(self.size * CODE + min(self.size, SAMPLE) * self.dim**2 * CODE_CHANNELS)


class Pairs(NamedTuple):
    """What a search compared: rows with leaves, and tiles of rows with the boxes of leaves."""

    rows: int
    leaves: int
    row_leaves: int
    tile_leaves: int

    def work(self, dim: int) -> float:
        """Return the work of this search."""
        row, row_leaf = ROW + ROW_CHANNEL * dim, ROW_LEAF + ROW_LEAF_CHANNEL * dim
        return float(self.rows * row + self.row_leaves * row_leaf + self.tile_leaves * TILE_LEAF)

    def share(self) -> float:
        """Return the share of the pairs of rows and leaves."""
        return self.row_leaves / max(self.rows * self.leaves, 1)


@dataclass
class History:
    """The searches of one codebook so far. The history stays with the codebook while its codes move.

    order     the order of the codes in the leaves of a tree; None before the first attempt
    prunes    whether searches leave codes out
    credit    work of searches through all codes since the last attempt to leave codes out
    patience  multiple of an attempt's work that the credit must reach before it; doubled by a failure
    saved     work that pruned searches saved of late beyond what makes them worth it; they end when it is negative
    least     the smallest share of pairs that a search with this order needed
    wasted    work that searches needed beyond this share
    """

    order: Order | None = None
    prunes: bool = False
    credit: float = 0.0
    patience: float = PATIENCE
    saved: float = 0.0
    least: float = math.inf
    wasted: float = 0.0

    def is_due(self, shape: Shape) -> bool:
        """Count a search through all codes, and return whether to attempt one that leaves codes out instead."""
        self.credit += shape.all_codes()
        attempt = shape.new_order() + Pairs(shape.rows, 0, 0, 0).work(shape.dim)
        return shape.size >= LEAST_CODES and self.credit >= self.patience * attempt

    def attempted(self, shape: Shape, pairs: Pairs) -> None:
        """Take in an attempt, a search of some of the rows of a shape."""
        self.prunes = pairs.work(shape.dim) < WORTH * shape._replace(rows=pairs.rows).all_codes()
        self.patience = PATIENCE if self.prunes else min(2 * self.patience, MOST_PATIENCE)
        self.credit, self.saved, self.wasted, self.least = 0.0, 0.0, 0.0, pairs.share()

    def searched(self, shape: Shape, pairs: Pairs) -> None:
        """Take in a pruned search. An order that has become worse is given up as soon as a new one would have cost
        less than the difference.
        """
        self.saved += WORTH * shape.all_codes() - pairs.work(shape.dim)
        self.prunes = self.saved >= 0
        self.saved = min(self.saved, shape.new_order())
        self.least = min(self.least, pairs.share())
        self.wasted += (pairs.share() - self.least) * shape.all_codes()
        if self.wasted > shape.new_order():
            self.order, self.least, self.wasted = None, math.inf, 0.0
