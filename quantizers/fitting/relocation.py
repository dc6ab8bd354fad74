"""Codes that k-means needs little move to where it needs them more, out of a local minimum."""

import torch
from torch import Tensor

from quantizers.core.parallel import total
from quantizers.fitting.revival import divided, moved
from quantizers.fitting.statistics import ROWS, statistics_of
from quantizers.fitting.task import Task
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.sums.operation import code_sums

ROUNDS = 8  # at most, with a sample of one size
SHARE = 10  # one code in so many moves in a round, at most
STEPS = 3  # of Lloyd's after each round


def relocated(task: Task, codes: Tensor, count: int) -> Tensor:
    """Move codes of little use beside codes with a large error while this lowers the inertia of a sample.

    Without code j, its vectors go to their second nearest codes. This costs the utility of Fritzke, "The LBG-U
    method for vector quantization", Neural Processing Letters 5, 1997,

        U_j = Σ_{x of j} (‖x − e_second‖² − ‖x − e_j‖²)

    and a second code for the vectors of s gains about their squares along one direction, see
    `clustering.spread.split`, but at most E_s = Σ_{x of s} ‖x − e_s‖². In each round the codes with the least U,
    one in ten at most, move beside those with the largest E, each of them where U < E / 2; then come three of
    Lloyd's steps. A round that does not lower the inertia is undone and is the last. Patanè and Russo shift codes
    likewise, "The enhanced LBG algorithm", Neural Networks 14, 2001.

    Args: codes: [K, D]. count: how many vectors of the sample.
    """
    z = task.own_sample(count)
    best = _inertia(task, z, codes)
    for number in range(ROUNDS):
        tried, pairs = _exchanged(task, z, codes, task.draws(4, count, number))
        if not pairs:
            break
        for step in range(STEPS):
            found, indices = statistics_of(z, tried)
            tried = moved(task, tried, found.over(task.group), z, indices, task.draws(5, count, number, step))
        after = _inertia(task, z, tried)
        if after >= best:
            break
        codes, best = tried, after
    return codes


def _inertia(task: Task, z: Tensor, codes: Tensor) -> float:
    found, _ = statistics_of(z, codes)
    found = found.over(task.group)
    task.journal.record("growing samples", found)
    task.journal.tell("growing samples", found.vectors, len(task.sample))
    return found.inertia


def _exchanged(task: Task, z: Tensor, codes: Tensor, draws: torch.Generator) -> tuple[Tensor, int]:
    """Move codes as `relocated` says. Returns: the codes, and how many pairs there were."""
    if len(codes) < 2:
        return codes, 0
    indices, utility, error = _uses(task, z, codes)
    most = max(1, len(codes) // SHARE)
    weak = utility.where(task.movable, torch.inf).argsort(stable=True)[:most]
    strong = error.where(task.movable, -1.0).argsort(descending=True, stable=True)[:most]
    weak = weak[(weak[:, None] != strong).all(-1)]
    worth = utility[weak] < error[strong[: len(weak)]] / 2
    weak, strong = weak[worth], strong[: len(weak)][worth]
    if not len(weak):
        return codes, 0
    codes, pairs = divided(task, codes, weak, strong, z, indices, draws)
    return codes, pairs.shape[1]


def _uses(task: Task, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The code of each vector of this rank [N]; and U and E of each code, [K] float64, over all ranks."""
    found, sums = [torch.empty(0, dtype=torch.int64, device=z.device)], codes.new_zeros(len(codes), 2).double()
    for block in torch.split(z, ROWS):
        indices, squared = (each[0] for each in k_nearest_codes(block[None], codes[None], 2))
        own = torch.stack([squared[:, 1] - squared[:, 0], squared[:, 0]], -1)
        sums += code_sums(own[None], indices[None, :, 0].contiguous(), len(codes))[1][0]
        found.append(indices[:, 0])
    (sums,) = total(task.group, sums)
    return torch.cat(found), sums[:, 0], sums[:, 1]
