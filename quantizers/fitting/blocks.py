"""The vectors that reach one table, with the indices of the codebooks before it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.fitting.places import Place, device_of, reaching
from quantizers.fitting.shares import Share
from quantizers.fitting.tables import Table
from quantizers.kernels.common.vectors import are_finite


class Columns:
    """The indices that the vectors of this rank have in the codebooks fitted so far: int32 [count, columns]."""

    def __init__(self) -> None:
        self._columns: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._columns)

    def append(self, blocks: list[Tensor]) -> None:
        """Add the indices [n, columns] of all blocks."""
        if blocks:
            self._columns += torch.cat([block.to("cpu", torch.int32) for block in blocks]).unbind(-1)

    def rows(self, start: int, stop: int, device: torch.device) -> Tensor:
        """The indices [stop − start, columns] of some vectors, int64."""
        if not self._columns:
            return torch.empty(stop - start, 0, dtype=torch.int64, device=device)
        return torch.stack([column[start:stop] for column in self._columns], -1).to(device, torch.int64)


class Sample:
    """Some vectors in random order, in memory, with their indices in the codebooks fitted so far."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.indices = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)

    def append(self, indices: Tensor) -> None:
        """Add indices [n, columns]."""
        self.indices = torch.cat([self.indices, indices], -1)


class Reach:
    """Computes the vectors that reach one place of a quantizer."""

    def __init__(self, root: Quantizer, place: Place) -> None:
        self.root, self.place = root, place
        self.device = device_of(root)

    @torch.no_grad()
    def __call__(self, x: Tensor, indices: Tensor) -> Tensor:
        """Args: x: [N, root.dim]. indices: [N, n] of the codebooks before."""
        if not self.place.path:
            return x
        return reaching(self.root, self.place.path, x, indices)

    def blocks(self, share: Share, columns: Columns) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each block of a rank's data: x [n, root.dim], its indices [n, columns], and what reaches the place."""
        start = 0
        for x in share.blocks():
            x = x.to(self.device)
            indices = columns.rows(start, start + len(x), self.device)
            start += len(x)
            yield x, indices, self(x, indices)


def searched(table: Table, vectors: Tensor) -> Tensor:
    """Vectors that reach a table, as its search compares them, without those that have no code."""
    z = table.vectors(vectors)
    return z[are_finite(z)] if table.spherical or z is not vectors else z
