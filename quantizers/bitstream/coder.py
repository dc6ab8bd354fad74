"""constriction's range coder, driven by frequencies that are integers.

A model is a table of weights ≥ 0, integers. The frequencies that the coder sees,

    f_k = 1 + ⌊w_k (2²⁴ − L) / Σ w⌋,  what is missing to 2²⁴ added to the f of the largest weight,

are computed in integers too, and are therefore the same on every machine. constriction takes probabilities and
distributes 2²⁴ − L in proportion, 1 more to each symbol: given f_k − 1, whose sum is that number, it finds
exactly f_k.

**Rate.** f_k / 2²⁴ > p_k (1 − L/2²⁴) for p = w / Σ w, so that a symbol costs at most log₂ 1/(1 − L/2²⁴) <
8.7·10⁻⁸ L bits more than −log₂ p_k, and at most 24 bits. Alphabets of more than 4,096 symbols are coded as two
digits to the base 4,096, p(high) p(low | high), so that this stays below 7.1·10⁻⁴ bits for up to 2²⁴ symbols. The
coder drops range mod 2²⁴ of a range that is spread log-uniformly over [2³², 2⁶⁴): 2⁻⁸ / (32 ln 2) / 2 / ln 2 =
1.3·10⁻⁴ bits a symbol on the average; and it ends within two words of 32 bits.
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
    """constriction's module `stream`. Raises: ImportError that names the extra."""
    try:
        return importlib.import_module("constriction").stream
    except ImportError as error:
        message = "compressing indices needs constriction: pip install quantizers-torch[codec]"
        raise ImportError(message) from error


def frequencies(weights: Integers) -> Integers:
    """f [..., L] ≥ 1 of weights [..., L] ≥ 0, Σ f = 2²⁴; all alike where the weights are all zero. 1 ≤ L ≤ 2¹²."""
    weights = np.where(weights.any(-1, keepdims=True), weights, 1)
    shared = 2**PRECISION - weights.shape[-1]
    found: Integers = 1 + weights * shared // weights.sum(-1, keepdims=True)
    missing = 2**PRECISION - found.sum(-1, keepdims=True)
    largest = weights.argmax(-1)[..., None]
    np.put_along_axis(found, largest, np.take_along_axis(found, largest, -1) + missing, -1)
    return found


def digit_table(weights: Integers) -> Integers:
    """Weights [..., L] by their high and low digit: [..., ⌈L/4096⌉, 4096], zeros behind the last."""
    rows = -(-weights.shape[-1] // BASE)
    padding = [(0, 0)] * (weights.ndim - 1) + [(0, rows * BASE - weights.shape[-1])]
    return np.pad(weights, padding).reshape(*weights.shape[:-1], rows, BASE)


class Writer:
    """Symbols in, bytes out. Raises: ImportError without constriction."""

    def __init__(self) -> None:
        stream = constriction_stream()
        self._models = stream.model
        self._encoder = stream.queue.RangeEncoder()

    @property
    def bits(self) -> int:
        """About how many bits are written, in words of 32."""
        return int(self._encoder.num_bits())

    def put(self, symbols: Integers, weights: Integers) -> None:
        """Symbols [n] in [0, L), all with weights [L], L ≤ 2²⁴."""
        if len(weights) <= BASE:
            if len(weights) > 1 and len(symbols):
                self._encoder.encode(symbols.astype(np.int32), _model(self._models, weights))
            return
        table = digit_table(weights)
        high, low = np.divmod(symbols, BASE)
        self.put(high, table.sum(-1))
        for row, places in groups(high):
            self.put(low[places], table[row])

    def put_rows(self, symbols: Integers, weights: Integers) -> None:
        """Symbols [n] in [0, L), each with weights [n, L] of its own."""
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
        """Values [n] in [0, size), size < 2⁶², all alike likely but for the rounding of size to its digits."""
        if size <= BASE:
            self.put(values, np.ones(size, dtype=np.int64))
        else:
            self.put_uniform(values >> 12, -(-size // BASE))
            self.put_uniform(values & (BASE - 1), BASE)

    def finish(self) -> bytes:
        """All that was written, as 32-bit words in little-endian order."""
        compressed: bytes = self._encoder.get_compressed().astype("<u4").tobytes()
        return compressed


class Reader:
    """Bytes of a Writer in, symbols out; the calls must be those of the Writer.

    Of other bytes the symbols are arbitrary, but within their alphabets.

    Raises: BitstreamError where the coder finds that no Writer can have written the bytes.
    """

    def __init__(self, payload: bytes) -> None:
        stream = constriction_stream()
        self._models = stream.model
        self._decoder = stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))

    def take(self, count: int, weights: Integers) -> Integers:
        """`count` symbols, all with weights [L]."""
        if len(weights) <= BASE:
            if len(weights) == 1 or count == 0:
                return np.zeros(count, dtype=np.int64)
            return self._decode(_model(self._models, weights), count)
        table = digit_table(weights)
        high = self.take(count, table.sum(-1))
        low = np.empty_like(high)
        for row, places in groups(high):
            low[places] = self.take(len(places), table[row])
        return _within(high * BASE + low, len(weights))

    def take_rows(self, weights: Integers) -> Integers:
        """n symbols, each with weights [n, L] of its own."""
        if weights.shape[1] <= BASE:
            if weights.shape[1] == 1 or not len(weights):
                return np.zeros(len(weights), dtype=np.int64)
            return self._decode(self._models.Categorical(perfect=False), _shares(weights))
        table = digit_table(weights)
        high = self.take_rows(table.sum(-1))
        low = self.take_rows(table[np.arange(len(high)), high])
        return _within(high * BASE + low, weights.shape[1])

    def take_uniform(self, count: int, size: int) -> Integers:
        """`count` values in [0, size)."""
        if size <= BASE:
            return self.take(count, np.ones(size, dtype=np.int64))
        high = self.take_uniform(count, -(-size // BASE))
        return _within(high << 12 | self.take_uniform(count, BASE), size)

    def _decode(self, *model: Any) -> Integers:
        try:
            symbols: Integers = self._decoder.decode(*model).astype(np.int64)
        except AssertionError:  # what constriction raises for it
            raise BitstreamError(UNREADABLE) from None
        return symbols


UNREADABLE = "data cannot be decoded with this model: it is corrupted, or was written with another one"


def groups(symbols: Integers) -> list[tuple[int, NDArray[np.intp]]]:
    """Each symbol that occurs, rising, and its places, rising."""
    order = symbols.argsort(kind="stable")
    found, starts = np.unique(symbols[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(found) else []


def _shares(weights: Integers) -> NDArray[np.float32]:
    """The probabilities of which constriction makes `frequencies`: integers below 2²⁴, which float32 holds."""
    return (frequencies(weights) - 1).astype(np.float32)


def _model(models: Any, weights: Integers) -> Any:
    return models.Categorical(_shares(weights), perfect=False)


def _within(symbols: Integers, size: int) -> Integers:
    """Symbols, if all are below the size, as those of a Writer are."""
    if len(symbols) and symbols.max() >= size:
        raise BitstreamError(UNREADABLE)
    return symbols
