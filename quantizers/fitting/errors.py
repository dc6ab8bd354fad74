"""The error of a whole quantizer on the vectors of all ranks, and how these use its codebooks."""

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import total
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.fitting.report import CodebookUse


class Errors:
    """Sums over vectors x and their indices.

    Args: centre: [dim], near the mean, so that the variance does not cancel.
    """

    def __init__(self, root: RowQuantizer, centre: Tensor) -> None:
        self._root, self._centre = root, centre
        self._counts = [torch.zeros(size, dtype=torch.float64) for size in root.codebook_sizes]
        self._sums = torch.zeros(len(centre) + 3, dtype=torch.float64)  # of x; errors, squares, vectors

    @torch.no_grad()
    def add(self, x: Tensor, indices: Tensor) -> None:
        """Args: x: [N, dim], finite. indices: [N, num_codebooks]."""
        coded = (indices >= 0).all(-1)
        x, indices = x[coded], indices[coded]
        for counts, column in zip(self._counts, indices.unbind(-1), strict=True):
            counts += torch.bincount(column, minlength=len(counts)).cpu()
        value = self._root.decode_rows(indices if self._root.composed else indices[:, 0])
        centred = x - self._centre
        squares = [(x - value).square().sum(-1), centred.square().sum(-1)]
        sums = [centred.sum(0, dtype=torch.float64), *(each.sum(dtype=torch.float64)[None] for each in squares)]
        self._sums += torch.cat([*sums, sums[0].new_tensor([len(x)])]).cpu()

    def over(self, group: Group) -> tuple[int, float, float, tuple[CodebookUse, ...]]:
        """How many vectors there are, their inertia and variance, and the use of each codebook; over all ranks."""
        sums, *counts = total(group, self._sums, *self._counts)
        count = float(sums[-1])
        mean = sums[:-3] / count
        variance = float(sums[-2] / count - mean.square().sum())
        return int(count), float(sums[-3] / count), max(0.0, variance), tuple(map(CodebookUse.of, counts))
