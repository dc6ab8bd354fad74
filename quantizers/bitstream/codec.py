"""The functions `compress` and `decompress`."""

import zlib

import numpy as np
import torch
from torch import Tensor

from quantizers.bitstream.alphabet import Alphabet, resolve_alphabet
from quantizers.bitstream.coder import UNREADABLE, Integers, Reader, Writer
from quantizers.bitstream.header import BitstreamError, Header, check_axes, read_stream, write_stream
from quantizers.bitstream.model import WRITERS, Model
from quantizers.bitstream.static import OwnCounts
from quantizers.core.base import Quantizer

MOST_ELEMENTS = 2**26


def compress(indices: Tensor, alphabet: Alphabet | Quantizer | int, model: Model | None = None) -> bytes:
    """Compress indices to bytes, to a length near their entropy.

    Each codebook is coded separately, and so is each digit of a grid (FSQ, LFQ). The entropy is then the sum of
    the separate entropies. If the channels of a small grid depend on each other, coding it as one codebook is
    shorter: pass K as the alphabet.

        >>> import torch, quantizers
        >>> indices = torch.tensor([[0, 3, -1], [3, 3, 3]])
        >>> data = quantizers.bitstream.compress(indices, 4)
        >>> torch.equal(quantizers.bitstream.decompress(data), indices)
        True

    **Rate.** For S symbols (digits of indices that are not −1) with L possible values each:

    - `Counts`, `Probabilities`: the cross entropy + S (8.7·10⁻⁸ L + 1.3·10⁻⁴) bits + 64 bytes. The overhead is at
      most 8.4·10⁻⁴ bits per symbol, see `coder.py`: at one bit of entropy per symbol, the length is within 0.1 %
      and 64 bytes. With counts of the indices themselves, the cross entropy is their entropy.
    - `OwnCounts`, the default: the same, and the tables: about ½ log₂ n + 3 bits for each code that occurs n
      times, and the information which codes occur, if not all do. Where log₂ L bits per symbol are less, that is
      used.

    The 64 bytes contain the header, for indices with up to four axes and up to sixteen different sizes or levels;
    each further one takes up to four bytes.

    Args:
        indices: integers [...], or [..., num_codebooks], on any device; −1 for vectors without a code.
        alphabet: K, an `Alphabet`, or the quantizer that chose the indices.
        model: the source of the probabilities: `Counts`, `Probabilities`, or None for `OwnCounts()`.

    Returns: the stream.

    Raises: ImportError without constriction; TypeError for indices that are not integers; ValueError for a shape
        or a model that does not fit; IndexError for an index outside [−1, K).
    """
    resolved = resolve_alphabet(alphabet, indices)
    model = OwnCounts() if model is None else model
    shape = check_axes(tuple(indices.shape))
    found = indices.detach().cpu().long().numpy()
    writer = Writer()
    model.put(writer, found, resolved)
    return write_stream(Header(model.number, shape, resolved, digest(found)), writer.finish())


def decompress(data: bytes, model: Model | None = None, *, max_elements: int = MOST_ELEMENTS) -> Tensor:
    """Restore the indices from bytes that `compress` returned.

    Args:
        data: the stream.
        model: the model that was passed to `compress`; None for OwnCounts.
        max_elements: the largest number of elements that a stream may have: the digits of its indices, one more
            per index (for whether it is −1), the entries of its tables, and 1,024 per table. A repeated code takes
            no bytes, so a short stream may contain very many indices. This limits memory (some tens of bytes per
            element) and time.

    Returns: the indices, int64, on the CPU.

    Raises: BitstreamError, a ValueError, for bytes that did not come from `compress`, are truncated or corrupted,
        exceed `max_elements`, or were written with another model; ValueError for a model whose sizes do not fit;
        TypeError for data that is not bytes; ImportError without constriction.
    """
    header, payload = read_stream(data, max_elements)
    model = OwnCounts() if model is None else model
    if header.model != model.number:
        name = WRITERS.get(header.model, f"model number {header.model}, which this version does not know")
        raise BitstreamError(f"data was written with {name}, and is read with {WRITERS[model.number]}")
    found = model.take(Reader(payload), header.shape, header.alphabet)
    if digest(found) != header.digest:
        raise BitstreamError(UNREADABLE)
    return torch.from_numpy(found)


def digest(indices: Integers, before: int = 0) -> int:
    """The CRC-32 of indices as little-endian int64, after arrays whose CRC-32 is `before`."""
    return zlib.crc32(np.ascontiguousarray(indices, dtype="<i8").tobytes(), before)
