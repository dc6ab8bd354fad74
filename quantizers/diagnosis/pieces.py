"""The quantizers inside a quantizer, each with the vectors that reached it and the indices that it gave them."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer, all_valid
from quantizers.composite.enclosing import EnclosingQuantizer
from quantizers.composite.pyramid_quantizer import PyramidQuantizer, shown_scale
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.row_quantizer import RowQuantizer

Where = tuple[str, ...]
"""The way to a quantizer from the outermost one: () for itself, ("stage 0",), ("group 1", "stage 0")."""


SHARED = "shared codebook"
"""The part that stands for all positions of one quantizer."""


class Piece(NamedTuple):
    """A quantizer with what it got and what it gave."""

    where: Where
    quantizer: Quantizer
    rows: Rows  # [N, quantizer.dim]
    indices: Tensor  # [N] or [N, num_codebooks]; [B, L] for a quantizer of B maps
    after_others: bool = False  # whether it quantizes what other quantizers may have left
    shared: bool = False  # whether the same quantizer has other positions


def pieces(outer: Piece) -> Iterator[Piece]:
    """The quantizer itself, then those inside it, in order.

    A quantizer that only rotates, bypasses or relaxes another one has no codes; the one inside stands for it. A
    quantizer at several positions appears at each of them, and after that once for all of them.
    """
    piece = _inside_wrappers(outer)
    yield piece
    quantizer = piece.quantizer
    if not isinstance(quantizer, ComposedQuantizer):
        return
    is_sequence, several = _is_sequence(quantizer), len(quantizer.quantizers) < len(quantizer.order)
    inputs = quantizer._component_inputs(quantizer._project_in(piece.rows), piece.indices)
    inner = [
        Piece((*piece.where, _label(quantizer, k)), component, all_valid(vectors), column, is_sequence, several)
        for k, (component, vectors, column) in enumerate(inputs)
    ]
    for each in inner:
        yield from pieces(each)
    for each, number in zip(inner, quantizer.order, strict=False):
        if several:
            name = f"{SHARED} {number}" if len(quantizer.quantizers) > 1 else SHARED
            yield _inside_wrappers(each._replace(where=(*piece.where, name), after_others=False, shared=False))


def _inside_wrappers(piece: Piece) -> Piece:
    rows, quantizer = piece.rows, piece.quantizer
    while isinstance(quantizer, EnclosingQuantizer):
        rows, quantizer = quantizer._project_in(rows), quantizer.quantizer
    return piece._replace(rows=rows, quantizer=quantizer)


def flat_indices(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The indices that a forward returned as rows: [N], [N, num_codebooks], or [B, L] of maps."""
    return indices.reshape(-1, indices.shape[-1]) if quantizer.composed else indices.reshape(-1)


def map_values(quantizer: PyramidQuantizer, rows: Rows, indices: Tensor) -> tuple[Tensor, Tensor]:
    """What the scales of maps approximate together, and the sum of their values: [n, code_dim] each.

    Only positions that count are in the result.
    """
    projected = quantizer._project_in(rows)
    maps = quantizer._split(indices, quantizer._sizes_of(projected))

    def replay(position: int, component: RowQuantizer, cells: Rows) -> tuple[Tensor, Tensor]:
        tokens = maps[position].reshape(-1)
        return component.nested_decode(tokens), tokens

    walk = quantizer._walk(projected, replay)
    counts = walk.counts.flatten()
    target, total = (
        each.movedim(1, -1).reshape(-1, each.shape[1])[counts]
        for each in (walk.target, torch.stack(walk.values).sum(0))
    )
    return target, total


def bits_per_vector(quantizer: Quantizer, rows: Rows) -> float:
    """log₂ of the number of values that indices tell apart, per vector; of maps, a mean over their positions."""
    bits = [math.log2(size) for size in quantizer.codebook_sizes]
    if not isinstance(quantizer, PyramidQuantizer):
        return sum(bits)
    cells = [math.prod(size) for size in quantizer._sizes_of(quantizer._project_in(rows))]
    return sum(count * each for count, each in zip(cells, bits, strict=False)) / cells[-1]


def _is_sequence(quantizer: Quantizer) -> bool:
    """Whether each component quantizes what the components before it left."""
    return isinstance(quantizer, PyramidQuantizer) or quantizer.stages[0] is not quantizer


def _label(quantizer: ComposedQuantizer, position: int) -> str:
    if isinstance(quantizer, PyramidQuantizer):
        return f"scale {position} ({shown_scale(quantizer.scales[position])})"
    if _is_sequence(quantizer):
        return f"stage {position}"
    return f"group {position}" if quantizer.groups[0] is not quantizer else f"codebook {position}"
