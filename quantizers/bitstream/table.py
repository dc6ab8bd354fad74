"""A compact format for a table of counts.

A count n need only be exact to about √n, so half of its bits are written. With e = ⌊log₂ n⌋ and s = ⌊e/2⌋ the
last s bits are replaced by the middle of their range, so that |n' − n| ≤ 2^(s−1) ≤ √n / 2. The N symbols then
cost N · KL(n/N ‖ n'/N') ≤ Σ_k n_k (n'_k/n_k − 1)² / ln 2 ≤ 0.37 bits more for each code that occurs: −ln(1 + δ) ≤
δ² − δ for δ ≥ −½.

For L codes of which m occur, the table contains which codes occur, with probability m/L each, in L · h(m/L) bits;
the steps of e from each code to the next one, with probabilities 2^−|step| / 3, in 1.6 + |step| bits each; and
the ⌈e/2⌉ bits of each count that follow its first bit.
"""

import numpy as np

from quantizers.bitstream.coder import LARGEST_SUM, Integers, Reader, Writer, groups
from quantizers.bitstream.header import BitstreamError

LARGEST_EXPONENT = 37
STEP_WEIGHTS = 2 ** (LARGEST_EXPONENT - np.abs(np.arange(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1, dtype=np.int64)))


def round_counts(counts: Integers) -> Integers:
    """Round counts [L] ≥ 0 to values that `put_table` can write. A count is rounded to 0 only if it is 0."""
    dropped = _exponents(counts) // 2
    return (counts >> dropped << dropped) + (1 << dropped >> 1)


def put_table(writer: Writer, counts: Integers) -> None:
    """Write rounded counts [L], of which at least one is above 0."""
    occurs = counts > 0
    occurring = int(occurs.sum())
    writer.put_uniform(np.array([occurring - 1]), len(counts))
    writer.put(occurs.astype(np.int64), np.array([len(counts) - occurring, occurring]))
    rounded = counts[occurs]
    exponents = _exponents(rounded)
    writer.put(np.diff(exponents, prepend=0) + LARGEST_EXPONENT, STEP_WEIGHTS)
    for exponent, positions in groups(exponents):
        bits = (exponent + 1) // 2
        writer.put_uniform(rounded[positions] >> exponent // 2 & (1 << bits) - 1, 1 << bits)


def take_table(reader: Reader, size: int) -> Integers:
    """Read counts [L] that `put_table` wrote. Raises: BitstreamError for other bytes."""
    occurring = int(reader.take_uniform(1, size)[0]) + 1
    occurs = reader.take(size, np.array([size - occurring, occurring])) > 0
    if occurs.sum() != occurring:
        raise BitstreamError("data has a table of counts that contradicts itself")
    exponents = (reader.take(occurring, STEP_WEIGHTS) - LARGEST_EXPONENT).cumsum()
    if exponents.min() < 0 or exponents.max() > LARGEST_EXPONENT:
        raise BitstreamError("data has a count outside the range of counts")
    rounded = np.empty_like(exponents)
    for exponent, positions in groups(exponents):
        bits, dropped = (exponent + 1) // 2, exponent // 2
        leading = reader.take_uniform(len(positions), 1 << bits) + (1 << bits)
        rounded[positions] = (leading << dropped) + (1 << dropped >> 1)
    if rounded.sum() > LARGEST_SUM:
        raise BitstreamError("data has counts beyond the range of counts")
    counts = np.zeros(size, dtype=np.int64)
    counts[occurs] = rounded
    return counts


def _exponents(counts: Integers) -> Integers:
    """⌊log₂ n⌋, 0 for 0; exact below 2⁵³."""
    return np.maximum(np.frexp(counts.astype(np.float64))[1].astype(np.int64) - 1, 0)
