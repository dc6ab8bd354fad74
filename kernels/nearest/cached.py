"""Codebooks in the layout of the compiled search, cached while they do not change, and followed while they do."""

import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.library import library
from quantizers.kernels.nearest.history import History
from quantizers.kernels.nearest.packed import Packed, pack
from quantizers.kernels.nearest.tree import Boxes, Order, fit, grow

CACHE_BYTES = 2**28  # limit for all cached codebooks
CACHE_ENTRIES = 1024  # limit because even a small entry has five tensors
SAMPLE = 16  # codes by which a codebook without an address of its own is recognized
MOVED = 0.1  # squared distance by which the sample may have moved, relative to its variance

Key = tuple[int, ...]


class Entry(NamedTuple):
    """One codebook at one time, packed, with the boxes of its leaves if its searches leave codes out."""

    packed: Packed
    order: Order | None
    boxes: Boxes | None
    history: History

    def nbytes(self) -> int:
        tensors = [*self.packed, *(self.order or ()), *(self.boxes or ())]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Codebooks:
    """A cache of the most recently searched codebooks.

    An entry is found by the codebook's memory address, and contains a copy of its values. It is used only if these
    equal the current values, so that no way of changing a codebook (in place, through `.data`, from numpy) is
    missed. The comparison is much cheaper than packing.

    The history of a codebook stays with it while its values change. A codebook that is computed for each search
    (SimVQ, cosine similarity, a cast) has no address of its own: it continues the history of the codebook of its
    shape that it resembles most, if there is one.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, codebook: Tensor) -> Entry:
        """Return the entry of a codebook [K, D], float32 and contiguous."""
        key = _key(codebook)
        with self._lock:
            found = key if key in self._entries else self._resembling(codebook)
            entry = self._drop(found) if found else None
        if entry is None or not torch.equal(entry.packed.codes, codebook):
            entry = make_entry(codebook, entry.history if entry else History(), self._is_kept(codebook))
        self._keep(key, entry)
        return entry

    def with_boxes(self, codebook: Tensor, entry: Entry) -> Entry:
        """Return the entry of a codebook with boxes, in a new order unless its history has one."""
        history, packed = entry.history, entry.packed
        if history.order is None:
            history.order = grow(packed.codes, packed.centre)
        order = history.order
        if order is entry.order and entry.boxes is not None:
            return entry
        if order is not entry.order:
            packed = pack(packed.codes, order=order.codes)
        entry = Entry(packed, order, fit(packed, order), history)
        self._keep(_key(codebook), entry)
        return entry

    def clear(self) -> None:
        """Remove all entries, and forget their histories."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def nbytes(self) -> int:
        """Return the memory of all entries."""
        return self._nbytes

    def _is_kept(self, codebook: Tensor) -> bool:
        return 3 * codebook.nbytes <= self.capacity

    def _keep(self, key: Key, entry: Entry) -> None:
        if not self._is_kept(entry.packed.codes):
            return
        with self._lock:
            self._drop(key)  # another thread may have added it
            self._entries[key] = entry
            self._nbytes += entry.nbytes()
            while self._nbytes > self.capacity or len(self._entries) > CACHE_ENTRIES:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._nbytes -= entry.nbytes()
        return entry

    def _resembling(self, codebook: Tensor) -> Key | None:
        """Return the key of the entry of this shape from which a sample of codes differs least, if it is near."""
        shape, step = _key(codebook)[:-1], -(-len(codebook) // SAMPLE)
        sample = codebook[::step]
        distances = {
            key: (sample - entry.packed.codes[::step]).square().sum().item()
            for key, entry in self._entries.items()
            if key[:-1] == shape
        }
        # A distance may be NaN, and is not below the limit then.
        limit = MOVED * (sample - sample.mean(0)).square().sum().item()
        near = [key for key, distance in distances.items() if distance <= limit]
        return min(near, key=lambda key: distances[key], default=None)


def make_entry(codebook: Tensor, history: History, copy: bool) -> Entry:
    """Return an entry of a codebook, copied if the entry will outlive its values."""
    order = history.order
    packed = pack(codebook.clone() if copy else codebook, order=order.codes if order else None)
    return Entry(packed, order, fit(packed, order) if order and history.prunes else None, history)


def _key(codebook: Tensor) -> Key:
    # The key includes the layout: a process may use libraries for several vector instruction sets.
    return (library().quantizers_codes_per_leaf(), *codebook.shape, codebook.data_ptr())


codebooks = Codebooks(CACHE_BYTES)
