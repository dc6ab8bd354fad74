"""Level counts for a grid with about as many codes as a codebook size."""

import itertools
import math
from collections.abc import Sequence

from quantizers.core.arguments.checks import check_at_least

# Table 1 of Mentzer et al. 2023.
PROPOSED_LEVELS = {
    2**8: (8, 6, 5),
    2**10: (8, 5, 5, 5),
    2**12: (7, 5, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**16: (8, 8, 8, 5, 5, 5),
}


def levels_for(codebook_size: int) -> tuple[int, ...]:
    """Level counts whose product is near a codebook size.

    For 2⁸, 2¹⁰, 2¹², 2¹⁴ and 2¹⁶ these are the levels of table 1 in the FSQ paper (Mentzer et al. 2023, arXiv
    2309.15505). Otherwise, by the paper's rule of at least five levels per channel, they are the counts from 5 to
    8 whose product is nearest in ratio, with the fewest channels on ties. Below 25 codes two such channels are
    too many: up to eight codes get one channel, more codes get two channels of three to five levels.

        >>> levels_for(1024), levels_for(1000), levels_for(6)
        ((8, 5, 5, 5), (8, 5, 5, 5), (6,))

    Raises: ValueError for a size below 2 or above 2⁶³.
    """
    codebook_size = check_at_least("codebook_size", codebook_size, 2)
    if codebook_size > 2**63:
        raise ValueError(f"codebook_size is {codebook_size}, expected at most 2**63")
    if codebook_size in PROPOSED_LEVELS:
        return PROPOSED_LEVELS[codebook_size]
    if codebook_size <= 8:
        return (codebook_size,)
    choices, channels = ((5, 4, 3), [2]) if codebook_size < 25 else ((8, 7, 6, 5), _channel_counts(codebook_size))
    candidates = (
        levels
        for count in channels
        for levels in itertools.combinations_with_replacement(choices, count)
        if math.prod(levels) <= 2**63
    )
    return min(candidates, key=lambda levels: abs(math.log(math.prod(levels) / codebook_size)))


def _channel_counts(codebook_size: int) -> list[int]:
    """The numbers of channels of five to eight levels that can give about that many codes."""
    fewest = math.floor(math.log(codebook_size, 8))
    most = math.ceil(math.log(codebook_size, 5))
    return list(range(max(fewest, 1), most + 1))


def levels_from(name: str, codebook_size: int | None, levels: Sequence[int] | None) -> Sequence[int]:
    """`levels`, or those for a codebook size. Raises: ValueError unless exactly one of them is given."""
    if codebook_size is not None and levels is None:
        return levels_for(codebook_size)
    if levels is not None and codebook_size is None:
        return levels
    raise ValueError(f"{name} takes either levels or codebook_size: expected exactly one of them")
