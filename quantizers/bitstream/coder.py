"""The range coder of constriction, with integer frequencies.

A model is a table of integer weights ≥ 0. The frequencies that the coder uses,

    f_k = 1 + ⌊w_k (2²⁴ − L) / Σ w⌋,  where the f of the largest weight also gets what is missing to 2²⁴,

are computed in integers, and are therefore the same on every machine. constriction takes probabilities and
distributes 2²⁴ − L in proportion to them, and adds 1 for each symbol. Given f_k − 1, whose sum is 2²⁴ − L, it
uses exactly f_k.

**Rate.** f_k / 2²⁴ > p_k (1 − L/2²⁴) for p = w / Σ w, so that a symbol costs at most log₂ 1/(1 − L/2²⁴) <
8.7·10⁻⁸ L bits more than −log₂ p_k, and at most 24 bits. Alphabets of more than 4,096 symbols are coded as two
digits to the base 4,096, p(high) p(low | high), so that this stays below 7.1·10⁻⁴ bits for up to 2²⁴ symbols. The
coder loses range mod 2²⁴ of a range that is distributed log-uniformly over [2³², 2⁶⁴): 2⁻⁸ / (32 ln 2) / 2 / ln 2
= 1.3·10⁻⁴ bits per symbol on average. It ends within two words of 32 bits.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantizers.bitstream.header import BitstreamError

PRECISION = 24  # bits of a frequency in constriction's default models
LARGEST_SUM = 2**38  # of weights: weight · 2²⁴ must fit int64
BASE = 2**12

Integers = NDArray[np.int64]


def constriction_stream() -> Any:
    """The module `stream` of constriction. Raises: ImportError that names the extra."""
    try:
        return importlib.import_module("constriction").stream
    except ImportError as error:
        message = "compressing indices needs constriction: pip install quantizers-torch[codec]"
        raise ImportError(message) from error


def frequencies(weights: Integers) -> Integers:
    """The frequencies f [..., L] ≥ 1 of weights [..., L] ≥ 0, with Σ f = 2²⁴ and 1 ≤ L ≤ 2¹².

    If all weights are zero, they count as equal.
    """
    weights = np.where(weights.any(-1, keepdims=True), weights, 1)
    shared = 2**PRECISION - weights.shape[-1]
    found: Integers = 1 + weights * shared // weights.sum(-1, keepdims=True)
    missing = 2**PRECISION - found.sum(-1, keepdims=True)
    largest = weights.argmax(-1)[..., None]
    np.put_along_axis(found, largest, np.take_along_axis(found, largest, -1) + missing, -1)
    return found


def digit_table(weights: Integers) -> Integers:
    """Weights [..., L] by high and low digit: [..., ⌈L/4096⌉, 4096], padded with zeros."""
    rows = -(-weights.shape[-1] // BASE)
    padding = [(0, 0)] * (weights.ndim - 1) + [(0, rows * BASE - weights.shape[-1])]
    return np.pad(weights, padding).reshape(*weights.shape[:-1], rows, BASE)


class Writer:
    """Writes symbols to bytes. Raises: ImportError without constriction."""

    def __init__(self) -> None:
        stream = constriction_stream()
        self._models = stream.model
        self._encoder = stream.queue.RangeEncoder()

    @property
    def bits(self) -> int:
        """The approximate number of bits written so far, in whole words of 32 bits."""
        return int(self._encoder.num_bits())

    def put(self, symbols: Integers, weights: Integers) -> None:
        """Write symbols [n] in [0, L), all with the weights [L], L ≤ 2²⁴."""
        if len(weights) <= BASE:
            if len(weights) > 1 and len(symbols):
                self._encoder.encode(symbols.astype(np.int32), _model(self._models, weights))
            return
        table = digit_table(weights)
        high, low = np.divmod(symbols, BASE)
        self.put(high, table.sum(-1))
        for row, positions in groups(high):
            self.put(low[positions], table[row])

    def put_rows(self, symbols: Integers, weights: Integers) -> None:
        """Write symbols [n] in [0, L), where each symbol has its own row of weights [n, L]."""
        if weights.shape[1] <= BASE:
            if weights.shape[1] > 1 and len(symbols):
                family = self._models.Categorical(perfect=False)
                self._encoder.encode(symbols.astype(np.int32), family, _shares(weights))
            return
        table = digit_table(weights)
        high, low = np.divmod(symbols, BASE)
        self.put_rows(high, table.sum(-1))
        self.put_rows(low, table[np.arange(len(high)), high])

    def put_uniform(self, values: Integers, size: int) -> None:
        """Write values [n] in [0, size), size < 2⁶², with equal probabilities up to the rounding of size to
        digits."""
        if size <= BASE:
            self.put(values, np.ones(size, dtype=np.int64))
        else:
            self.put_uniform(values >> 12, -(-size // BASE))
            self.put_uniform(values & (BASE - 1), BASE)

    def finish(self) -> bytes:
        """Return all that was written, as 32-bit words in little-endian order."""
        compressed: bytes = self._encoder.get_compressed().astype("<u4").tobytes()
        return compressed


class Reader:
    """Reads symbols from the bytes of a Writer. The calls must correspond to those of the Writer.

    From other bytes it reads arbitrary symbols, but only such that are within their alphabets.

    Raises: BitstreamError if the coder detects that no Writer can have written the bytes.
    """

    def __init__(self, payload: bytes) -> None:
        stream = constriction_stream()
        self._models = stream.model
        self._decoder = stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))

    def take(self, count: int, weights: Integers) -> Integers:
        """Read `count` symbols, all with the weights [L]."""
        if len(weights) <= BASE:
            if len(weights) == 1 or count == 0:
                return np.zeros(count, dtype=np.int64)
            return self._decode(_model(self._models, weights), count)
        table = digit_table(weights)
        high = self.take(count, table.sum(-1))
        low = np.empty_like(high)
        for row, positions in groups(high):
            low[positions] = self.take(len(positions), table[row])
        return _within(high * BASE + low, len(weights))

    def take_rows(self, weights: Integers) -> Integers:
        """Read n symbols, where each symbol has its own row of weights [n, L]."""
        if weights.shape[1] <= BASE:
            if weights.shape[1] == 1 or not len(weights):
                return np.zeros(len(weights), dtype=np.int64)
            return self._decode(self._models.Categorical(perfect=False), _shares(weights))
        table = digit_table(weights)
        high = self.take_rows(table.sum(-1))
        low = self.take_rows(table[np.arange(len(high)), high])
        return _within(high * BASE + low, weights.shape[1])

    def take_uniform(self, count: int, size: int) -> Integers:
        """Read `count` values in [0, size)."""
        if size <= BASE:
            return self.take(count, np.ones(size, dtype=np.int64))
        high = self.take_uniform(count, -(-size // BASE))
        return _within(high << 12 | self.take_uniform(count, BASE), size)

    def _decode(self, *model: Any) -> Integers:
        try:
            symbols: Integers = self._decoder.decode(*model).astype(np.int64)
        except AssertionError:  # constriction raises it for invalid data
            raise BitstreamError(UNREADABLE) from None
        return symbols


UNREADABLE = "data cannot be decoded with this model: it is corrupted, or was written with another model"


def groups(symbols: Integers) -> list[tuple[int, NDArray[np.intp]]]:
    """Each symbol that occurs, in ascending order, with its positions, in ascending order."""
    order = symbols.argsort(kind="stable")
    found, starts = np.unique(symbols[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(found) else []


def _shares(weights: Integers) -> NDArray[np.float32]:
    """The probabilities for which constriction uses `frequencies`: integers below 2²⁴, exact in float32."""
    return (frequencies(weights) - 1).astype(np.float32)


def _model(models: Any, weights: Integers) -> Any:
    return models.Categorical(_shares(weights), perfect=False)


def _within(symbols: Integers, size: int) -> Integers:
    """The symbols. Raises: BitstreamError unless all are below the size, as a Writer ensures."""
    if len(symbols) and symbols.max() >= size:
        raise BitstreamError(UNREADABLE)
    return symbols
