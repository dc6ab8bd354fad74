"""A table of counts in few bits.

A count of n matters to about √n: it is sent with half of its bits. With e = ⌊log₂ n⌋ and s = ⌊e/2⌋ the last s
bits are replaced by their middle, so that |n' − n| ≤ 2^(s−1) ≤ √n / 2. The N symbols then cost N · KL(n/N ‖ n'/N')
≤ Σ_k n_k (n'_k/n_k − 1)² / ln 2 ≤ 0.37 bits more for each code that occurs: −ln(1 + δ) ≤ δ² − δ for δ ≥ −½.

The table has, for L codes of which m occur: which ones, as coins of weight m : L − m, L · h(m/L) bits; the steps
of e from each code to the next one, distributed as 2^−|step| / 3, 1.6 + |step| bits; and ⌈e/2⌉ bits that follow
the first.
"""

import numpy as np

from quantizers.bitstream.coder import LARGEST_SUM, Integers, Reader, Writer, groups
from quantizers.bitstream.header import BitstreamError

LARGEST_EXPONENT = 37
STEP_WEIGHTS = 2 ** (LARGEST_EXPONENT - np.abs(np.arange(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1, dtype=np.int64)))


def round_counts(counts: Integers) -> Integers:
    """Counts [L] ≥ 0 as `put_table` keeps them; 0 stays 0, and no other becomes it."""
    dropped = _exponents(counts) // 2
    return (counts >> dropped << dropped) + (1 << dropped >> 1)


def put_table(writer: Writer, counts: Integers) -> None:
    """Rounded counts [L], at least one above 0."""
    occurs = counts > 0
    occurring = int(occurs.sum())
    writer.put_uniform(np.array([occurring - 1]), len(counts))
    writer.put(occurs.astype(np.int64), np.array([len(counts) - occurring, occurring]))
    kept = counts[occurs]
    exponents = _exponents(kept)
    writer.put(np.diff(exponents, prepend=0) + LARGEST_EXPONENT, STEP_WEIGHTS)
    for exponent, places in groups(exponents):
        bits = (exponent + 1) // 2
        writer.put_uniform(kept[places] >> exponent // 2 & (1 << bits) - 1, 1 << bits)


def take_table(reader: Reader, size: int) -> Integers:
    """The counts [L] that `put_table` wrote. Raises: BitstreamError where it did not write them."""
    occurring = int(reader.take_uniform(1, size)[0]) + 1
    occurs = reader.take(size, np.array([size - occurring, occurring])) > 0
    if occurs.sum() != occurring:
        raise BitstreamError("data has a table of counts that contradicts itself")
    exponents = (reader.take(occurring, STEP_WEIGHTS) - LARGEST_EXPONENT).cumsum()
    if exponents.min() < 0 or exponents.max() > LARGEST_EXPONENT:
        raise BitstreamError("data has a count outside the range of counts")
    kept = np.empty_like(exponents)
    for exponent, places in groups(exponents):
        bits, dropped = (exponent + 1) // 2, exponent // 2
        leading = reader.take_uniform(len(places), 1 << bits) + (1 << bits)
        kept[places] = (leading << dropped) + (1 << dropped >> 1)
    if kept.sum() > LARGEST_SUM:
        raise BitstreamError("data has counts beyond the range of counts")
    counts = np.zeros(size, dtype=np.int64)
    counts[occurs] = kept
    return counts


def _exponents(counts: Integers) -> Integers:
    """⌊log₂ n⌋, 0 for 0; exact below 2⁵³."""
    return np.maximum(np.frexp(counts.astype(np.float64))[1].astype(np.int64) - 1, 0)
