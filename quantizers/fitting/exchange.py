"""Codes that k-means needs little move to where it needs them more, out of a local minimum."""

import torch
from torch import Tensor

from quantizers.clustering.seeding import Group
from quantizers.clustering.spread import split
from quantizers.core.parallel import total
from quantizers.fitting.revival import OFFSET
from quantizers.fitting.statistics import ROWS, Statistics
from quantizers.fitting.task import Task
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.sums.operation import code_sums


class Uses:
    """The sums of one assignment of vectors to codes [K, D], K ≥ 2, and the use of each code.

    Attributes:
        found: the sums.
        utility: [K] float64, what the squared error would grow by without this code, since its vectors would go to
            their second nearest codes: Σ (‖x − e_second‖² − ‖x − e‖²). Fritzke, "The LBG-U method for vector
            quantization", Neural Processing Letters 5, 1997.
    """

    def __init__(self, codes: Tensor) -> None:
        self.found = Statistics.zero(codes)
        self.utility = torch.zeros_like(self.found.squares)

    def add(self, z: Tensor, codes: Tensor) -> Tensor:
        """Assign vectors z [N, D]. Returns: indices [N], −1 for none."""
        pairs, squared = k_nearest_codes(z[None], codes[None], 2)
        indices = pairs[..., 0].contiguous()
        counts, sums = code_sums(z[None], indices, len(codes))
        columns = torch.stack([squared[..., 0], squared[..., 1] - squared[..., 0]], -1)
        _, errors = code_sums(columns, indices, len(codes))
        own = (*self.found, self.utility)
        for mine, new in zip(own, (counts[0], sums[0], errors[0, :, 0], errors[0, :, 1]), strict=True):
            mine += new
        return indices[0]

    def over(self, group: Group) -> "Uses":
        """The sums over all ranks."""
        *found, self.utility = total(group, *self.found, self.utility)
        self.found = Statistics(*found)
        return self


def uses_of(z: Tensor, codes: Tensor, group: Group) -> tuple[Uses, Tensor]:
    """Assign vectors in memory. Returns: the sums over all ranks, and this rank's indices [N]."""
    uses = Uses(codes)
    indices = [uses.add(block, codes) for block in torch.split(z, ROWS)]
    return uses.over(group), torch.cat([torch.empty(0, dtype=torch.int64, device=z.device), *indices])


def exchanged(
    task: Task, codes: Tensor, uses: Uses, z: Tensor, indices: Tensor, share: float, draws: torch.Generator
) -> Tensor:
    """Move the codes of least utility beside those with the largest error, where this lowers the error.

    A second code for the n vectors of s, which spread with the standard deviation σ along one direction, gains
    about n (0.8 σ)², see `clustering.spread.split`: more than the utility of the code that moves. Patanè and Russo
    shift codes likewise, "The enhanced LBG algorithm", Neural Networks 14, 2001.

    Args:
        codes: [K, D], the means of the assignment. uses: of the assignment, over all ranks.
        z, indices: vectors of this rank, all or some of them, and the codes that they chose.
        share: of the codes that may move, in [0, 1].
    """
    most = int(share * len(codes))
    weak = uses.utility.where(task.movable, torch.inf).argsort(stable=True)[:most]
    strong = uses.found.squares.where(task.movable, 0.0).argsort(descending=True, stable=True)[: 2 * most]
    strong = strong[~torch.isin(strong, weak)]
    pairs, placed = split(codes, weak, strong, z, indices, offset=OFFSET, group=task.group, draws=draws)
    offsets = (placed[: pairs.shape[1]] - placed[pairs.shape[1] :]) / 2
    gains = uses.found.counts[pairs[1]] * offsets.square().sum(-1)
    worth = (uses.utility[pairs[0]] < gains).repeat(2)
    placed = normalize(placed) if task.table.spherical else placed
    return task.of_first_rank(codes.index_copy(0, pairs.flatten()[worth], placed[worth]))
