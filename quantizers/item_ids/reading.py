"""Embeddings of a few items out of many."""

from collections.abc import Callable

import torch
from torch import Tensor

from quantizers.vectors import Vectors


class Reader:
    """Reads the embeddings of items by position.

    Args:
        vectors: where the embeddings are.
        rows: the row of each item, int64 [N], ascending.
    """

    def __init__(self, vectors: Vectors, rows: Tensor) -> None:
        self.vectors, self.rows = vectors, rows

    def read(self, items: Tensor) -> Tensor:
        """The embeddings [n, D] of items, int64 positions [n] without repetition, in any order."""
        ascending, order = items.sort()
        read = self.vectors.take(self.rows[ascending])
        result = torch.empty_like(read)
        result[order.to(read.device)] = read
        return result

    def among(self, items: Tensor) -> Callable[[Tensor], Tensor]:
        """`read` for any of these items, any number of times.

        Where every reading is a pass over all vectors, there is one pass, and the embeddings are held in memory.
        """
        if self.vectors.seeks:
            return self.read
        held = self.read(items)
        place = torch.empty(len(self.rows), dtype=torch.int64)
        place[items] = torch.arange(len(items))
        return lambda wanted: held[place[wanted].to(held.device)]
