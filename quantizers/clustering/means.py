"""Codes as means of the vectors that chose them: one iteration of Lloyd's k-means from existing codes."""

import torch
from torch import Tensor, distributed

from quantizers.core.base import Quantizer
from quantizers.core.learned_codes import LearnedCodes
from quantizers.core.parallel import total
from quantizers.kernels.sums.operation import code_sums


def takes_means(table: LearnedCodes) -> bool:
    """Whether the codes of a table can become means: they are not frozen, and the nearest one is chosen."""
    return not table.frozen and isinstance(table, Quantizer) and table._index_rule.get("choice") == "nearest"


class CodeMeans:
    """The vectors that chose the codes of one table: how many, and the sums of their differences from the codes.

    Far from the origin, rounding a sum of vectors would exceed their differences.
    """

    def __init__(self, table: Quantizer) -> None:
        self.table = table
        self.codes = table.codebook.detach()
        self.counts = torch.zeros_like(self.codes[:, 0], dtype=torch.int64)
        self.sums = torch.zeros_like(self.codes)

    def add(self, vectors: Tensor, indices: Tensor) -> None:
        """Add vectors [N, code_dim] with their indices [N]."""
        differences = vectors.to(self.codes) - self.codes[indices]
        counts, sums = code_sums(differences[None], indices[None], len(self.codes))
        self.counts += counts[0].to(torch.int64)
        self.sums += sums[0]

    def complete(self, group: distributed.ProcessGroup | None) -> bool:
        """Add up those of all ranks. Returns: whether any vector chose a code."""
        (self.counts,), (self.sums,) = total(group, self.counts), total(group, self.sums)
        return bool(self.counts.any())

    def place(self) -> None:
        """Set the codes. A code whose sum exceeds the range of its dtype stays."""
        means = self.codes + self.sums / self.counts.clamp(min=1)[:, None]
        moves = (self.counts > 0) & means.isfinite().all(-1)
        if getattr(self.table, "distance", None) == "cosine":
            moves &= means.any(-1)  # zero has no direction
        (positions,) = moves.nonzero(as_tuple=True)
        self.table.place_codes(positions, means[positions])
