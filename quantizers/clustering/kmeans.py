"""k-means, Euclidean or on the unit sphere: centroids of vectors as codes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.clustering.seeding import Group, seeds
from quantizers.core.arguments.checks import check_at_least
from quantizers.core.distance import Distance, check_distance
from quantizers.core.parallel import (
    ProcessGroup,
    Ranks,
    of_each_rank,
    of_first_rank,
    rank_in,
    rows_of_ranks,
    total,
)
from quantizers.kernels.common.arguments import check_axes, check_floating
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.vectors import are_finite, compute_dtype, normalize
from quantizers.kernels.common.wide import narrowed
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.sums.operation import code_sums

NUDGE = 1e-3  # the largest distance of a copied code from its original, relative to the vectors' spread
ATTEMPTS = 500  # to move copies until rounding leaves no two codes equal


@torch.no_grad()
def kmeans(
    x: Tensor,
    size: int,
    *,
    distance: Distance = "euclidean",
    iterations: int = 10,
    generator: torch.Generator | None = None,
    process_group: ProcessGroup = "world",
) -> Tensor:
    """Find codes that make Σᵢ minⱼ ‖xᵢ − eⱼ‖² small: seeds by k-means++ (see `seeding.seeds`), then Lloyd's
    iterations.

    Lloyd (1957, 1982): eⱼ ← the mean of the vectors whose nearest code is j. With distance="cosine", vectors and
    means are divided by their norms: spherical k-means (Dhillon and Modha, "Concept Decompositions for Large
    Sparse Text Data Using Clustering", Machine Learning 42, 2001). Before each mean is taken, codes without a
    vector move to the vectors that are farthest from their codes. The iterations end early when no vector changes
    its code.

    **Guaranteed:** If at least K vectors are distinct, every code is the nearest code of at least one vector, so
    that no two codes are equal. Ties go to the lowest index, as in `nearest_code`; under a float32 matmul
    precision below "highest" a GPU may choose differently. If fewer vectors are distinct, the codes are these
    vectors, followed by copies of them, moved by at most a thousandth of the vectors' spread (of their norm, if
    they have no spread; farther if rounding leaves no room), and no two codes are equal. Two vectors are distinct
    if the square of their distance, divided by the widest range of a channel, does not vanish in x's dtype: in
    float32, if their distance is 10⁻²² of this range. With distance="cosine" this applies to directions, after
    rounding; a zero vector has no direction and does not count.

    With distance="angle", the codes have the directions of spherical k-means. Each has the mean length of its
    vectors, since a search by angle ignores lengths.

    With several ranks, the codes are bit-equal on all ranks, and distributed as the codes of one process on all
    vectors. Seeds are drawn from the vectors of all ranks, with the first rank's random numbers; sums and farthest
    vectors are taken over all ranks. Every rank must call this function, even with x of shape [0, D].

    Memory is O((N + K)·D). The host waits for the device several times per iteration.

    Args:
        x: [N, D] vectors. float64 is computed in float64, any other dtype in float32.
        size: K ≥ 1. distance: "euclidean", "cosine" or "angle".
        iterations: the largest number of Lloyd's iterations; 0 for the seeds alone.
        generator: a source of random numbers, from which one is drawn; default: torch's own on x's device.
        process_group: the ranks whose vectors count: "world" for all, a `torch.distributed` group, or None for
            this rank alone.

    Returns: codes [K, D], float32 or float64; of unit norm for distance="cosine".

    Raises: TypeError if x has no floating dtype. ValueError if x has another shape, is not finite, or contains no
        vector that counts (every rank raises); for size < 1, iterations < 0 or another distance; and for size > 2
        with "cosine" or "angle" and one channel, which has two directions.
    """
    _check(x, size, distance, iterations)
    group = Ranks(process_group).group()
    if distance == "angle":
        directions = kmeans(
            x, size, distance="cosine", iterations=iterations, generator=generator, process_group=process_group
        )
        return codes_of_mean_length(x, directions, group)
    with without_autocast(x.device):
        x = x.detach().to(compute_dtype(x))
        _check_values(x, distance, group)
        draws = _shared_generator(x.device, generator, group)
        if distance == "cosine":
            x, factor = normalize(x)[(x != 0).any(-1)], 1.0
        else:
            factor = _factor(x, group)
            x = x * factor
        codes = seeds(x, size, draws, group)
        if codes.shape[0] == size:
            codes = _lloyd(x, codes, distance, iterations, group)
        return filled_up(codes, size, distance, factor, draws)


def codes_of_mean_length(x: Tensor, directions: Tensor, group: Group = None) -> Tensor:
    """Scale directions [K, D] to the mean length of their vectors, or of all vectors if they have none.

    Args: x: [N, D] vectors of this rank. group: the ranks whose vectors count.
    """
    with without_autocast(x.device):
        x = x.detach().to(directions)[(x != 0).any(-1)]
        unit = normalize(x)
        indices, _ = _nearest(unit, directions)
        counts = _counts(indices, directions, group)
        # Lengths by products with unit vectors, so that no square overflows; divided before the sum, likewise.
        shares = (x * unit).sum(-1, keepdim=True) / counts[indices, None]
        (lengths,) = total(group, _sums(shares, indices, directions))
        anywhere = (lengths[:, 0] * (counts / counts.sum())).sum()
        lengths = lengths.where(counts[:, None] > 0, anywhere).clamp(max=torch.finfo(x.dtype).max)
        return directions * lengths


class _Assignment(NamedTuple):
    """Codes, and the assignment of vectors to them."""

    codes: Tensor  # [K, D]
    indices: Tensor  # [N]
    counts: Tensor  # [K], over all ranks
    reseeded: bool  # whether a code without vectors has moved to one


def _lloyd(x: Tensor, codes: Tensor, distance: Distance, iterations: int, group: Group) -> Tensor:
    """Improve codes [K, D] until each has a vector; the inertia never grows. Fewer codes if distances vanish."""
    assignment = _assigned(x, codes, group)
    for _ in range(iterations):
        before, assignment = assignment, _assigned(x, _means(x, assignment, distance, group), group)
        (changed,) = total(group, (assignment.indices != before.indices).sum())
        if not changed:
            break
    # A code that moved may have taken another code's last vector, by a tie or a rounding that only a new search
    # finds. A code that equals a vector keeps this vector, so that after at most K rounds every code has one.
    for _ in range(codes.shape[0]):
        if not assignment.reseeded:
            break
        assignment = _assigned(x, assignment.codes, group)
    return assignment.codes[assignment.counts > 0]


def _assigned(x: Tensor, codes: Tensor, group: Group) -> _Assignment:
    """Assign vectors to their nearest codes; move codes without vectors to the vectors farthest from theirs."""
    indices, squared = _nearest(x, codes)
    counts, reseeded = _counts(indices, codes, group), False
    while (counts == 0).any():  # repeat where two moved to equal vectors, which the first one gets
        empty = (counts == 0).nonzero().flatten()
        farthest = _farthest(x, squared, empty.shape[0], group)
        if not farthest.shape[0]:
            break
        moved, reseeded = empty[: farthest.shape[0]], True
        codes = codes.index_copy(0, moved, farthest)
        found, nearer = _nearest(x, farthest)
        indices, squared = indices.where(squared <= nearer, moved[found]), squared.minimum(nearer)
        counts = _counts(indices, codes, group)
    return _Assignment(codes, indices, counts, reseeded)


def _means(x: Tensor, assignment: _Assignment, distance: Distance, group: Group) -> Tensor:
    """The mean of each code's vectors, or its direction; a code without vectors stays."""
    codes, indices, counts, _ = assignment
    if distance == "cosine":
        (sums,) = total(group, _sums(x, indices, codes))
        return normalize(sums).where((sums != 0).any(-1, keepdim=True), codes)
    # Sum the differences from the code: far from the origin, rounding a sum of vectors exceeds their differences.
    (sums,) = total(group, _sums(x - codes[indices], indices, codes))
    return codes + sums / counts.clamp(min=1)[:, None]


def _farthest(x: Tensor, squared: Tensor, count: int, group: Group) -> Tensor:
    """Up to `count` vectors of all ranks: the farthest from their codes, without vectors that equal their code."""
    own = squared.sort(descending=True, stable=True)
    offered = F.pad(own.values[:count], (0, max(0, count - x.shape[0])))
    every = of_each_rank(group, offered).flatten().sort(descending=True, stable=True)
    chosen = every.indices[:count][every.values[:count] > 0]
    mine = chosen // count == rank_in(group)
    positions = torch.zeros_like(chosen)
    positions[mine] = own.indices[chosen[mine] % count]
    return rows_of_ranks(group, mine, positions, x)[0]


def _nearest(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    indices, squared = nearest_code(x[None], codes[None])
    return indices[0], squared[0]


def _sums(x: Tensor, indices: Tensor, codes: Tensor) -> Tensor:
    return code_sums(x[None], indices[None], codes.shape[0])[1][0]


def _counts(indices: Tensor, codes: Tensor, group: Group) -> Tensor:
    return total(group, torch.bincount(indices, minlength=codes.shape[0]))[0]


def filled_up(codes: Tensor, size: int, distance: Distance, factor: float, draws: torch.Generator) -> Tensor:
    """Divide the codes by `factor`, and append moved copies of them up to `size`."""
    count, missing = codes.shape[0], size - codes.shape[0]
    filled = codes / factor
    if not missing:
        return filled
    rows, order = codes.cpu().double(), torch.arange(missing, device="cpu")
    spread = float((rows - rows.mean(0)).square().sum(-1).mean().sqrt()) or float(rows.norm()) or 1.0
    # Copies of one code get different distances from it: on a line, random directions would coincide.
    steps = (order // count + 1)[:, None] / math.ceil(missing / count) * NUDGE * spread
    largest = torch.finfo(codes.dtype).max
    for attempt in range(ATTEMPTS):
        directions = normalize(
            torch.randn(rows[order % count].shape, dtype=torch.float64, generator=draws, device="cpu")
        )
        copies = rows[order % count] + 2 ** (attempt // 8) * steps * directions
        copies = normalize(copies) if distance == "cosine" else (copies / factor).clamp(-largest, largest)
        filled = torch.cat([codes / factor, narrowed(copies, codes.dtype, codes.device)])
        if torch.unique(filled, dim=0).shape[0] == size:
            break
    return filled


def _factor(x: Tensor, group: Group) -> float:
    """A power of two, the same on all ranks, that scales the widest range of a channel to about 1.

    Squares then fit the dtype.
    """
    extremes = x.new_full((2 * x.shape[1],), -torch.inf)
    if x.shape[0]:
        extremes = torch.cat([x.amax(0), -x.amin(0)])
    high, low = of_each_rank(group, extremes).amax(0).cpu().double().chunk(2)
    # Half of each, since the range itself may overflow; at least 2⁻⁶⁰ of the values, so that they do not.
    extent = max(float((high / 2 + low / 2).max()), 2.0**-60 * float(torch.cat([high, low]).abs().max()))
    lowest = math.frexp(torch.finfo(x.dtype).tiny)[1]
    return 2.0 ** -max(lowest, min(math.frexp(extent)[1], -lowest)) if extent else 1.0


def _shared_generator(device: torch.device, generator: torch.Generator | None, group: Group) -> torch.Generator:
    """A generator on the CPU, the same on all ranks, with a seed that the first rank draws."""
    own = torch.randint(2**62, (1,), generator=generator, device=generator.device if generator else device)
    return torch.Generator("cpu").manual_seed(int(of_first_rank(group, own.to(device))))


def _check(x: Tensor, size: int, distance: Distance, iterations: int) -> None:
    check_floating(x=x)
    check_axes("x", x, "[N, D]")
    size, iterations = check_at_least("size", size, 1), check_at_least("iterations", iterations, 0)
    if x.shape[1] < 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected at least one channel")
    check_distance(distance)
    if distance != "euclidean" and x.shape[1] == 1 and size > 2:
        raise ValueError(
            f"size is {size}, expected at most 2: with distance={distance!r}, one channel has two directions"
        )


def _check_values(x: Tensor, distance: Distance, group: Group) -> None:
    """Raise on all ranks alike, so that none waits for another."""
    bad = (~are_finite(x)).sum()
    counting = (x != 0).any(-1).sum() if distance == "cosine" else torch.full_like(bad, x.shape[0])
    bad, counting = total(group, bad, counting)
    if bad:
        raise ValueError(f"x contains {int(bad)} vectors that are not finite, expected none")
    if not counting:
        kind = "a vector that is not zero" if distance == "cosine" else "a vector"
        raise ValueError(f"x has shape {tuple(x.shape)}, expected {kind} on at least one rank")
