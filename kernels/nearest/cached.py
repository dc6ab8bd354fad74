"""Codebooks in the layout of the compiled search, cached while they do not change, and followed while they do."""

import math
import threading
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.library import library
from quantizers.kernels.nearest.history import History
from quantizers.kernels.nearest.packed import Packed, pack
from quantizers.kernels.nearest.tree import Boxes, Order, fit, grow

CACHE_BYTES = 2**28  # limit for all cached codebooks
CACHE_ENTRIES = 1024  # limit because even a small entry has five tensors
SAMPLE = 32  # numbers by which a codebook without an address of its own is recognized
MOVED = 0.1  # squared distance by which they may have moved, relative to their variance
ALIKE = 4  # entries with one history: those of a codebook that is computed lie at different addresses

Key = tuple[int, ...]  # codes of a leaf, K, D, and the memory address


class Entry(NamedTuple):
    """One codebook at one time, packed, with the boxes of its leaves if its searches leave codes out."""

    key: Key
    sample: list[float]
    packed: Packed
    order: Order | None
    boxes: Boxes | None
    history: History

    def nbytes(self) -> int:
        """Return the memory of all tensors."""
        tensors = [*self.packed, *(self.order or ()), *(self.boxes or ())]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Codebooks:
    """A cache of the most recently searched codebooks.

    An entry contains a copy of the codebook's values. It is used only if these equal the current values, so that
    no way of changing a codebook (in place, through `.data`, from numpy) is missed. The comparison is much cheaper
    than packing.

    The history of a codebook stays with it while its values change. The codebook is recognized by some of its
    values, even if it is computed for each search (SimVQ, cosine similarity, a cast); its memory address decides
    between several that are near. Those that are near, such as a model and its moving average, share a history.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: list[Entry] = []  # the latest last
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, codebook: Tensor) -> Entry:
        """Return the entry of a codebook [K, D], float32 and contiguous."""
        key, sample = _key(codebook), _sample(codebook)
        with self._lock:
            found = self._find(key, sample)
        if found is not None and torch.equal(found.packed.codes, codebook):
            self._keep(found, found)
            return found
        history = found.history if found else History()
        codes = codebook.clone() if self._fits(codebook) else codebook
        packed = pack(codes, order=history.order.codes if history.order else None)
        boxes = fit(packed, history.order) if history.order and history.prunes else None
        entry = Entry(key, sample, packed, history.order, boxes, history)
        self._keep(entry, found if found and found.key == key else None)
        return entry

    def with_boxes(self, entry: Entry) -> Entry:
        """Return an entry with boxes, in a new order unless its history has one."""
        history, packed = entry.history, entry.packed
        if history.order is None:
            history.order = grow(packed.codes, packed.centre)
        order = history.order
        if order is entry.order and entry.boxes is not None:
            return entry
        if order is not entry.order:
            packed = pack(packed.codes, order=order.codes)
        with_boxes = entry._replace(packed=packed, order=order, boxes=fit(packed, order))
        self._keep(with_boxes, entry)
        return with_boxes

    def clear(self) -> None:
        """Remove all entries, and forget their histories."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def nbytes(self) -> int:
        """Return the memory of all entries."""
        return self._nbytes

    def _fits(self, codebook: Tensor) -> bool:
        return 3 * codebook.nbytes <= self.capacity

    def _keep(self, entry: Entry, former: Entry | None) -> None:
        """Store an entry as the latest, in place of the former one at its address."""
        # What is not finite equals nothing, and would not be found again.
        if not (self._fits(entry.packed.codes) and all(map(math.isfinite, entry.sample))):
            return
        with self._lock:
            replaced = [p for p, other in enumerate(self._entries) if former and other.packed is former.packed]
            alike = [p for p, other in enumerate(self._entries) if other.history is entry.history]
            if replaced or len(alike) == ALIKE:
                self._drop((replaced or alike)[0])
            self._entries.append(entry)
            self._nbytes += entry.nbytes()
            while self._nbytes > self.capacity or len(self._entries) > CACHE_ENTRIES:
                self._drop(0)

    def _drop(self, place: int) -> None:
        self._nbytes -= self._entries.pop(place).nbytes()

    def _find(self, key: Key, sample: list[float]) -> Entry | None:
        """Return the entry of a codebook, or of what it has been; None if there is none."""
        mean = sum(sample) / len(sample)
        limit, nearest = MOVED * sum((value - mean) ** 2 for value in sample), None
        for entry in self._entries:
            if entry.key[:-1] != key[:-1]:
                continue
            distance = sum((a - b) ** 2 for a, b in zip(sample, entry.sample, strict=True))
            if distance <= limit:  # not if it is NaN
                limit, nearest = distance, entry
                if entry.key == key:
                    break
        return nearest


def _key(codebook: Tensor) -> Key:
    # The key includes the layout: a process may use libraries for several vector instruction sets.
    return (library().quantizers_codes_per_leaf(), *codebook.shape, codebook.data_ptr())


def _sample(codebook: Tensor) -> list[float]:
    """Return some numbers of a codebook, of different codes and channels."""
    values: list[float] = codebook.flatten()[:: codebook.numel() // SAMPLE | 1].tolist()
    return values


codebooks = Codebooks(CACHE_BYTES)
