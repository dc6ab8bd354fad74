"""Statistics of a batch that is split over ranks, summed by one all-reduce per step."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch import distributed as dist

from quantizers.core.arguments.checks import plain
from quantizers.kernels.common.compat import default_group

ProcessGroup = dist.ProcessGroup | Literal["world"] | None


class Ranks:
    """The ranks over which a quantizer sums its statistics. The group is looked up in each step.

    A copy refers to the same group. A pickle contains the name of the group: a process that loads it and trains
    must have a group of that name, which should consist of the same ranks. A process that evaluates needs no
    group.

    Args:
        process_group: "world" for all ranks, an existing group, or None for separate ranks.

    Raises: TypeError for anything else.
    """

    def __init__(self, process_group: ProcessGroup) -> None:
        self._group: dist.ProcessGroup | None = None
        self.name: str | None
        name = plain(process_group)
        if name is None or (isinstance(name, str) and name == "world"):
            self.name = name
        elif isinstance(process_group, dist.ProcessGroup):
            self._group, self.name = process_group, process_group.group_name
        else:
            raise TypeError(
                f"process_group is {process_group!r}, expected 'world', None or a torch.distributed.ProcessGroup"
            )

    def group(self) -> dist.ProcessGroup | None:
        """The group to sum over now; None if there is no process group, or only one rank in it.

        Raises: RuntimeError if this process has no group of the name that a pickle contained.
        """
        if self.name is None or not dist.is_available() or default_group() is None:  # a guard of compiled code
            return None
        group = default_group() if self.name == "world" else self._group or _group_named(self.name)
        return group if dist.get_world_size(group) > 1 else None

    def __deepcopy__(self, memo: object) -> "Ranks":
        copied = Ranks(None)
        copied.name, copied._group = self.name, self._group
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_group": None}

    def __repr__(self) -> str:
        return repr(self.name)


def _group_named(name: str) -> dist.ProcessGroup:
    from torch._C._distributed_c10d import _resolve_process_group

    try:
        return _resolve_process_group(name)  # type: ignore[arg-type]
    except (LookupError, RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"the quantizer sums its statistics over process group {name!r}, which this process does not have; "
            "set its process_group"
        ) from error


Averages = tuple[Tensor, Tensor, Tensor]  # N [K], m [K, D], and whether they have changed, 0-d bool


def ema_over_ranks(
    counts: Tensor,
    sums: Tensor,
    cluster_size: Tensor,
    embedding_sum: Tensor,
    decay: float,
    group: dist.ProcessGroup | None,
) -> Averages:
    """The moving averages γN + (1−γ)n and γm + (1−γ)s, with n and s summed over the ranks of a group.

    The same all-reduce also carries the old averages of the first rank, already weighted. After a step, all ranks
    therefore have the same bits, even if they had different averages before. The result is that of a single
    process, up to the order of summation.

    Args:
        counts: n [1, K], the number of vectors of this rank that chose each code.
        sums: s [1, K, D], the sums of these vectors.
        cluster_size: N [K]. embedding_sum: m [K, D]. decay: γ.
        group: the ranks to sum over; None for this rank only.

    Returns: the new N and m, and whether any vector on any rank counts, 0-d bool. If none does, N and m are the
        old ones of this rank. A code whose sum s overflows the dtype of m ignores its vectors, and its m is
        computed from that of this rank.
    """
    counts, sums = (statistic[0].to(embedding_sum.dtype) for statistic in (counts, sums))
    first = rank_in(group) == 0
    old_size, old_sum = (old if first else torch.zeros_like(old) for old in (cluster_size, embedding_sum))
    counts, old_size, new_sum = total(group, counts, old_size, decay * old_sum + (1 - decay) * sums)
    fits = ((new_sum - decay * embedding_sum) / (1 - decay)).isfinite().all(-1)
    counts = counts.where(fits, 0.0)
    moves = counts.sum() > 0
    new_size = decay * old_size + (1 - decay) * counts
    new_sum = new_sum.where(fits[:, None], decay * embedding_sum)
    return new_size.where(moves, cluster_size), new_sum.where(moves, embedding_sum), moves


def sum_over_ranks(group: dist.ProcessGroup, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor summed over the ranks, in one all-reduce. All tensors have the same dtype and device."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat, group=group)
    sums = torch.split(flat, [tensor.numel() for tensor in tensors])
    return tuple(each.view_as(tensor) for each, tensor in zip(sums, tensors, strict=True))


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks; the gradient of a rank's term is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return sum_over_ranks(group, tensor)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _SumOverRanks.apply(gradient, ctx.group), None  # type: ignore[no-untyped-call]


def differentiable_sum_over_ranks(group: dist.ProcessGroup, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`sum_over_ranks`, through which gradients flow: one all-reduce, and one in the backward on every rank.

    Let each of R ranks add f(Σ_r s_r) to its loss. The gradient that rank r gets at s_r is that of the sum of all
    ranks' losses, R f′. DDP's mean over the ranks then makes it (1/R) Σ_r R f′ ∂s_r = Σ_r f′ ∂s_r: the gradient
    of f in one process that has all terms, without a further factor, however unevenly the terms are split.
    """
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    summed: Tensor = _SumOverRanks.apply(flat, group)  # type: ignore[no-untyped-call]
    sums = torch.split(summed, [tensor.numel() for tensor in tensors])
    return tuple(each.view_as(tensor) for each, tensor in zip(sums, tensors, strict=True))


def total(group: dist.ProcessGroup | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`sum_over_ranks`, or the tensors unchanged if there is no group."""
    return tensors if group is None else sum_over_ranks(group, *tensors)


def rank_in(group: dist.ProcessGroup | None) -> int:
    """The rank of this process; 0 if there is no group."""
    return 0 if group is None else dist.get_rank(group)


def of_first_rank(group: dist.ProcessGroup | None, tensor: Tensor) -> Tensor:
    """The first rank's values of a tensor, with the same bits on all ranks except for the sign of zero."""
    return total(group, tensor if rank_in(group) == 0 else torch.zeros_like(tensor))[0]


def of_each_rank(group: dist.ProcessGroup | None, values: Tensor) -> Tensor:
    """The values [n] of every rank, as [ranks, n]. Computed by a sum, which all backends support."""
    every = values.new_zeros(1 if group is None else dist.get_world_size(group), *values.shape)
    every[rank_in(group)] = values
    return total(group, every)[0]


def rows_of_ranks(
    group: dist.ProcessGroup | None, mine: Tensor, positions: Tensor, *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Gather rows that are stored on different ranks. Their bits are preserved, except for the sign of zero.

    Args:
        mine: [n] bool, which of the rows this rank stores. Exactly one rank stores each row.
        positions: [n], the positions of the rows in this rank's tensors; arbitrary where `mine` is False.
        tensors: [N, ...], all of one dtype.

    Returns: the rows [n, ...] of each tensor, on all ranks.
    """
    rows = [tensor.new_zeros(positions.shape[0], *tensor.shape[1:]) for tensor in tensors]
    for row, tensor in zip(rows, tensors, strict=True):
        row[mine] = tensor[positions[mine]]
    return total(group, *rows)
