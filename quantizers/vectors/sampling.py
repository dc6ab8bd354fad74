"""A uniform random sample of vectors that depends on the seed only, not on blocks or ranks.

Every position has a random key, and the rows with the smallest keys are the sample. A key follows from the seed
and the position by a counter-based generator, so that each rank finds its part of the sample by itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, check_integer
from quantizers.kernels.common.constants import WORD_BITS
from quantizers.kernels.common.noise import WORD, philox
from quantizers.kernels.common.vectors import are_finite
from quantizers.vectors.base import Vectors, piece_rows
from quantizers.vectors.parts import Part
from quantizers.vectors.smallest import Smallest, sort

KEY_BLOCK = 2**16  # positions whose keys are drawn at a time
STREAM = 1  # the last word of the counter; that of Gumbel noise is 0


class Sample(NamedTuple):
    """Rows of a random sample, in ascending order of (key, position): a random order of the rows."""

    keys: Tensor
    """int64 [n], in [0, 2⁶³)."""
    positions: Tensor
    """int64 [n]."""
    rows: Tensor
    """[n, dim], on the device of the source; the others are on the CPU."""


def sample(vectors: Vectors, count: int, seed: int, *, rank: int = 0, ranks: int = 1) -> Sample:
    """Draw `count` rows uniformly among those that are finite, without replacement; all of them if they are fewer.

    With several ranks, each draws from its own positions, see `Part`; `merge_samples` makes the whole sample.
    Memory: the sample, and a copy of it where the source cannot seek. A source that seeks is read at the sampled
    positions only, unless many of these are not finite; any other in one pass.

    Args:
        vectors: the same source on every rank. count: ≥ 1. seed: any integer of 64 bits.

    Raises: as `Vectors.blocks`.
    """
    count, seed = check_at_least("count", count, 1), check_integer("seed", seed)
    part = Part(vectors, rank, ranks)
    found = _seek(part, count, seed) if vectors.seeks else None
    return found or _scan(part, count, seed)


def merge_samples(samples: Sequence[Sample], count: int) -> Sample:
    """The sample that one process draws, from those of all ranks, in any order."""
    keys = torch.cat([each.keys for each in samples])
    positions = torch.cat([each.positions for each in samples])
    order = sort(keys, positions)[:count]
    rows = torch.cat([each.rows for each in samples])
    return Sample(keys[order], positions[order], rows[order.to(rows.device)])


def draw_keys(seed: int, start: int, stop: int) -> Tensor:
    """The keys of the positions start ≤ position < stop, int64 in [0, 2⁶³).

    The counter of Philox is (the 64 bits of ⌊p/2⌋, 0, 1) for position p. An even position has the first two words
    without their last bit, and an odd one the other two.
    """
    pairs = torch.arange(start // 2, (stop + 1) // 2)
    zero = torch.zeros_like(pairs)
    key = [torch.tensor(seed & WORD), torch.tensor((seed >> WORD_BITS) & WORD)]
    words = philox([pairs & WORD, pairs >> WORD_BITS, zero, zero + STREAM], key)
    even, odd = ((words[i] << WORD_BITS - 1) | (words[i + 1] >> 1) for i in (0, 2))
    return torch.stack([even, odd], -1).flatten()[start % 2 :][: stop - start]


def _seek(part: Part, count: int, seed: int) -> Sample | None:
    """Choose positions by their keys, a few more than asked for; None if too few of them are finite."""
    vectors, wanted = part.vectors, count + count // 64 + 64
    assert vectors.count is not None
    smallest = Smallest(wanted)
    for start, stop in part.slices(vectors.count, KEY_BLOCK):
        smallest.add(draw_keys(seed, start, stop), torch.arange(start, stop), torch.empty(stop - start, 0))
    chosen = smallest.ordered()
    assert chosen is not None
    keys, positions, _ = chosen
    rows, finite = _take(vectors, positions)
    if finite.all():
        return Sample(keys[:count], positions[:count], rows[:count])
    kept = finite.nonzero()[:count, 0]
    if len(kept) < count and len(keys) == wanted:
        return None
    return Sample(keys[kept], positions[kept], rows[kept.to(rows.device)])


def _take(vectors: Vectors, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The rows at positions in any order [n, dim], and which of them are finite, bool [n] on the CPU."""
    rows: Tensor | None = None
    finite = torch.empty(len(positions), dtype=torch.bool)
    for chunk in torch.split(positions.argsort(), piece_rows(vectors.dim)):
        taken = vectors.take(positions[chunk])
        rows = taken.new_empty(len(positions), vectors.dim) if rows is None else rows
        rows[chunk.to(rows.device)] = taken
        finite[chunk] = are_finite(taken).cpu()
    assert rows is not None
    return rows, finite


def _scan(part: Part, count: int, seed: int) -> Sample:
    """Read all rows of the part, and keep those with the smallest keys."""
    smallest = Smallest(count)
    for start, block in part.located_blocks(min(KEY_BLOCK, piece_rows(part.vectors.dim))):
        keys, positions = draw_keys(seed, start, start + len(block)), torch.arange(start, start + len(block))
        finite = are_finite(block).cpu()
        if finite.all():
            smallest.add(keys, positions, block)
        else:
            smallest.add(keys[finite], positions[finite], block[finite.to(block.device)])
    found = smallest.ordered()
    assert found is not None
    return Sample(*found)
