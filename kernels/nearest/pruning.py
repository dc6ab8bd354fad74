"""The compiled search of one codebook: through all codes, or through the leaves of a tree that may contain the
nearest.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, threads
from quantizers.kernels.nearest.cached import Entry, codebooks
from quantizers.kernels.nearest.history import Pairs, Shape
from quantizers.kernels.nearest.packed import leaves

MODES = ("auto", "always", "never")
SAMPLE = 1024  # rows, about, that an attempt searches

Outputs = list[Tensor | None]


@dataclass
class Work:
    """The pairs of row and leaf in the searches of a block, and how many of them were scored."""

    pairs: int = 0
    scored: int = 0

    @property
    def share(self) -> float | None:
        """The scored share; None without a search."""
        return self.scored / self.pairs if self.pairs else None


_mode: ContextVar[str] = ContextVar("mode", default="auto")
_records: ContextVar[tuple[Work, ...]] = ContextVar("records", default=())


@contextlib.contextmanager
def use_pruning(mode: str = "auto") -> Iterator[Work]:
    """Choose how the compiled search treats codes that cannot be the nearest, in this block and thread.

    The result is the same in every mode.

    Args:
        mode: "auto" leaves them out where that saves time, as it does outside of any block. "always" leaves them
            out in every search, and "never" compares all codes.

    Yields: the work of the searches in the block, including those in nested blocks:

        with use_pruning("always") as work:
            quantizer(x)
        print(work.share)  # 0.014: of all pairs of a vector and a leaf of codes

    Raises: ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {list(MODES)}")
    work = Work()
    chosen, records = _mode.set(mode), _records.set((*_records.get(), work))
    try:
        yield work
    finally:
        _mode.reset(chosen)
        _records.reset(records)


def search(x: Tensor, codebook: Tensor, outputs: Outputs) -> None:
    """Write the indices [N], the squared distances [N] and the chosen codes [N, D] or None of x [N, D] and codes
    [K, D], float32 and contiguous.
    """
    entry, mode, shape = codebooks.get(codebook), _mode.get(), Shape(len(x), *codebook.shape)
    history = entry.history
    if mode == "auto" and not history.prunes and history.is_due(shape):
        entry = codebooks.with_boxes(entry)
        history.attempted(shape, _search_leaves(x, entry, outputs, stride=max(1, len(x) // SAMPLE)))
    if mode == "never" or (mode == "auto" and not history.prunes):
        _search_all(x, entry, outputs)
        return
    pairs = _search_leaves(x, codebooks.with_boxes(entry), outputs)
    if mode == "auto":
        history.searched(shape, pairs)


def _search_all(x: Tensor, entry: Entry, outputs: Outputs) -> None:
    shape = Shape(len(x), *entry.packed.codes.shape)
    number = threads(int(shape.all_codes()))
    call("quantizers_nearest", [x, shape.rows, *entry.packed.arguments(), number, *outputs])
    _record(Pairs(shape.rows, leaves(shape.size), shape.rows * leaves(shape.size), 0))


def _search_leaves(x: Tensor, entry: Entry, outputs: Outputs, stride: int = 1) -> Pairs:
    """Search the leaves that may contain the nearest code, for all rows or for every stride-th tile of them."""
    assert entry.order is not None
    assert entry.boxes is not None
    shape, work = Shape(len(x), *entry.packed.codes.shape), torch.zeros(3, dtype=torch.int64)
    tree = [*entry.packed.arguments(), *entry.order[1:], *entry.boxes]
    number = threads(int(shape.all_codes() * min(entry.history.least, 1.0) / stride))
    call("quantizers_nearest_pruned", [x, shape.rows, *tree, stride, number, *outputs, work])
    rows, row_leaves, tile_leaves = work.tolist()
    pairs = Pairs(rows, leaves(shape.size), row_leaves, tile_leaves)
    _record(pairs)
    return pairs


def _record(pairs: Pairs) -> None:
    for work in _records.get():
        work.pairs += pairs.rows * pairs.leaves
        work.scored += pairs.row_leaves
