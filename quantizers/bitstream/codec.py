"""compress and decompress."""

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
    """Indices as bytes, near their entropy.

    Of several codebooks each is coded by itself, and of a grid (FSQ, LFQ) each digit: the entropy is the sum of
    theirs. A small grid whose channels depend on each other is shorter as one codebook: pass K.

    **Rate.** With S symbols (digits of indices that are not −1) of alphabets of L:

    - `Counts`, `Probabilities`: cross entropy + S (8.7·10⁻⁸ L + 1.3·10⁻⁴) bits + 64 bytes, at most 8.4·10⁻⁴ bits a
      symbol, see `coder.py`: within 0.1 % and 64 bytes where a symbol has a bit of entropy. Counts of the indices
      themselves make it their entropy.
    - `OwnCounts`, the default: the same, and the tables: about ½ log₂ n + 3 bits for each code that occurs, n
      times, and where some do not, which ones; or, where that is less, log₂ L bits a symbol.

    The 64 bytes hold the header of indices of four axes and up to sixteen different sizes or levels; each further
    one takes up to four bytes.

    Args:
        indices: integers [...], or [..., num_codebooks]; −1 for what has no code. Any device.
        alphabet: K, an `Alphabet`, or the quantizer that gave the indices.
        model: where the probabilities come from: `OwnCounts()` if None, `Counts` or `Probabilities`.

    Raises: ImportError without constriction; TypeError for indices that are not integers; ValueError for a shape
    or model that does not fit; IndexError for an index outside [−1, K).
    """
    resolved = resolve_alphabet(alphabet, indices)
    model = OwnCounts() if model is None else model
    shape = check_axes(tuple(indices.shape))
    found = indices.detach().cpu().long().numpy()
    writer = Writer()
    model.put(writer, found, resolved)
    return write_stream(Header(model.number, shape, resolved, digest(found)), writer.finish())


def decompress(data: bytes, model: Model | None = None, *, max_elements: int = MOST_ELEMENTS) -> Tensor:
    """The indices of `compress`: int64, on the CPU.

    Args:
        data: what `compress` returned.
        model: that of `compress`; None for OwnCounts.
        max_elements: refuse a stream that asks for more elements: the digits of its indices, one more for each
            (whether it is −1), the entries of its tables, and 1,024 for each table. A code that is
            repeated takes no bytes, so that a short stream may hold very many: this bounds memory (some tens of
            bytes each) and time.

    Raises: BitstreamError, a ValueError, for bytes that are foreign, truncated, corrupted, too large, or were
    written with another model; ValueError for a model whose sizes do not fit; TypeError for what is no bytes;
    ImportError without constriction.
    """
    header, payload = read_stream(data, max_elements)
    model = OwnCounts() if model is None else model
    if header.model != model.number:
        name = WRITERS.get(header.model, f"a model of number {header.model}, which this version does not know")
        raise BitstreamError(f"data was written with {name}, and is read with {WRITERS[model.number]}")
    found = model.take(Reader(payload), header.shape, header.alphabet)
    if digest(found) != header.digest:
        raise BitstreamError(UNREADABLE)
    return torch.from_numpy(found)


def digest(indices: Integers, before: int = 0) -> int:
    """CRC-32 of indices as little-endian int64, of several arrays one after the other."""
    return zlib.crc32(np.ascontiguousarray(indices, dtype="<i8").tobytes(), before)
