"""The error of a whole quantizer on the vectors of all ranks, and how these use its codebooks."""

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.core.parallel import total
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.fitting.report import CodebookUse
from quantizers.monitoring.metrics import code_counts

BYTES = 2**18  # that are decoded at once on a CPU, so that they stay in its cache
DEVICE_BYTES = 2**26  # on a device, which takes as long to start a kernel for few vectors as for many


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
        for counts, column in zip(self._counts, indices.unbind(-1), strict=True):
            counts += code_counts(column, len(counts)).cpu()
        indices = indices if self._root.composed else indices[:, 0]
        size = BYTES if x.device.type == "cpu" else DEVICE_BYTES
        count = max(1, size // (x.element_size() * x.shape[-1]))
        blocks = zip(torch.split(x, count), torch.split(indices, count), strict=True)
        self._sums += torch.stack([self._sums_of(rows, own) for rows, own in blocks]).cpu().double().sum(0)

    def _sums_of(self, x: Tensor, indices: Tensor) -> Tensor:
        value = self._root.decode_rows(indices)
        centred, difference = x - self._centre, x - value
        squares = torch.stack([each.square().sum(-1).sum() for each in (difference, centred)])
        return torch.cat([centred.sum(0), squares, squares.new_tensor([len(x)])])

    def over(self, group: Group) -> tuple[int, float, float, tuple[CodebookUse, ...]]:
        """How many vectors there are, their inertia and variance, and the use of each codebook; over all ranks."""
        device = self._centre.device
        summed = total(group, *(each.to(device) for each in (self._sums, *self._counts)))
        sums, *counts = (each.cpu() for each in summed)
        count = float(sums[-1])
        mean = sums[:-3] / count
        variance = float(sums[-2] / count - mean.square().sum())
        return int(count), float(sums[-3] / count), max(0.0, variance), tuple(map(CodebookUse.of, counts))
