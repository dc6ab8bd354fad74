"""Codebooks in the memory layout of the compiled search, cached while they do not change."""

import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import Argument, call, threads
from quantizers.kernels.common.compiled.library import library

CACHE_BYTES = 2**25  # limit for all cached codebooks
CACHE_ENTRIES = 1024  # limit because even a small entry has five tensors


class Packed(NamedTuple):
    """See quantizers_pack in nearest.cpp."""

    codes: Tensor  # [K, D] float32, contiguous
    packed: Tensor
    bias: Tensor
    centre: Tensor
    extent: Tensor

    def arguments(self) -> list[Argument]:
        """Return the arguments for the functions of nearest.cpp."""
        return [self.codes, *self.codes.shape, self.packed, self.bias, self.centre, self.extent]

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self)


def pack(codes: Tensor, bias: Tensor | None = None) -> Packed:
    """Pack codes [K, D], float32 and contiguous, for a search by distance, or by score with a bias [K]."""
    size, dim = codes.shape
    tile = library().quantizers_codes_per_tile()
    padded = (size + tile - 1) // tile * tile
    margin = library().quantizers_padding()
    packed, packed_bias = codes.new_empty(padded * dim + margin), codes.new_empty(padded + margin)
    centre, extent = codes.new_empty(dim), codes.new_empty(2, dtype=torch.float64)
    call("quantizers_pack", [codes, bias, size, dim, threads(size * dim), packed, packed_bias, centre, extent])
    return Packed(codes, packed, packed_bias, centre, extent)


class PackedCodebooks:
    """A cache of the most recently searched codebooks, packed.

    An entry is found by the codebook's memory address, and contains a copy of its values. It is used only if these
    equal the current values, so that no way of changing a codebook (in place, through `.data`, from numpy) is
    missed. The comparison is much cheaper than packing, and packing is cheap compared with a search for many
    vectors: the cache helps in serving, with a few vectors at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[tuple[int, ...], Packed] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, codebook: Tensor) -> Packed:
        """Return `pack(codebook)` for a codebook [K, D], float32 and contiguous."""
        # The key includes the layout: a process may use libraries for several vector instruction sets.
        key = (library().quantizers_codes_per_tile(), codebook.data_ptr(), *codebook.shape)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and torch.equal(entry.codes, codebook):
                self._entries.move_to_end(key)
                return entry
            self._drop(key)
        if 3 * codebook.nbytes > self.capacity:
            return pack(codebook)
        entry = pack(codebook.clone())
        with self._lock:
            self._drop(key)  # another thread may have added it
            self._entries[key] = entry
            self._nbytes += entry.nbytes()
            while self._nbytes > self.capacity or len(self._entries) > CACHE_ENTRIES:
                self._drop(next(iter(self._entries)))
        return entry

    def _drop(self, key: tuple[int, ...]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._nbytes -= entry.nbytes()

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def nbytes(self) -> int:
        """Return the memory of all entries."""
        return self._nbytes


codebooks = PackedCodebooks(CACHE_BYTES)
