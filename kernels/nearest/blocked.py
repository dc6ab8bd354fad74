"""The nearest code in two passes of plain PyTorch, for a CPU without a compiler and for devices without Triton.

A matrix product yields the scores tile by tile; only the smallest of each group of neighbouring codes is stored
(`amin` runs at memory speed, `argmin` does not). Groups that may contain a row's nearest code, by the bound (22)
of kernels/nearest/README.md, are scored again. If a single code remains, it is the nearest. All of this is in
float32, which every device has. The other rows are decided in float64, as in the reference, and on the CPU if
their device has no float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.constants import (
    CANDIDATE_MARGIN,
    EXTRA_ROUNDINGS,
    LARGEST_SCORE,
    ROUNDOFF_FLOAT32,
    SMALLEST_FLOAT32,
)
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.common.wide import multiplies_in_float32, wide
from quantizers.kernels.nearest import reference

ROWS, CODES = 2048, 1024  # of a tile of scores
SMALL_GROUP, LARGE_GROUP, LARGE_CODEBOOK = 128, 256, 4096
PAIR_BUDGET = 2**19  # elements of a float64 block of (row, group) pairs


class _Packed(NamedTuple):
    """A codebook in groups, in float32."""

    centre: Tensor  # [D], about the mean code
    weights: Tensor  # [groups · group, D + 1]: −centred and ½‖centred‖², +inf for padding and broken codes
    radius: Tensor  # 0-d, no smaller than the largest ‖centred‖
    group: int


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """As in kernels/nearest/reference.py."""
    indices, _, distance = nearest_lookup(x, codebook)
    return indices, distance


@torch.no_grad()
def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in kernels/nearest/reference.py."""
    if compute_dtype(x, codebook) == torch.float64:
        return reference.nearest_lookup(x, codebook)  # the reference is plain PyTorch and needs no certificate
    indices = torch.empty(x.shape[:2], dtype=torch.int64, device=x.device)
    for head, (vectors, codes) in enumerate(zip(x, codebook, strict=True)):
        indices[head] = _search(vectors.float(), codes.float())
    chosen = codebook.float().gather(1, indices.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
    distance = (x.float() - chosen).square().sum(-1).masked_fill(indices < 0, torch.nan)
    return indices, chosen.masked_fill((indices < 0)[..., None], 0.0), distance


def _search(x: Tensor, codebook: Tensor) -> Tensor:
    """Return indices [N] of rows [N, D]."""
    if not x.shape[0]:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    finite = x.isfinite().all(-1)
    rows = x.where(finite[:, None], 0.0)
    if not multiplies_in_float32(x.device):
        return _decided_exactly(rows, codebook).where(finite, -1)
    packed = _pack(codebook)
    parts = [_search_rows(block, packed) for block in torch.split(rows, ROWS)]
    indices, uncertain = (torch.cat(each) for each in zip(*parts, strict=True))
    left = (uncertain & finite).nonzero().flatten()
    if left.shape[0]:
        indices[left] = _decided_exactly(rows[left], codebook)
    return indices.where(finite, -1)


def _pack(codebook: Tensor) -> _Packed:
    size, dim = codebook.shape
    group = min(LARGE_GROUP if size >= LARGE_CODEBOOK else SMALL_GROUP, size)
    padding = -size % group
    finite = codebook.isfinite().all(-1)
    codes = codebook.where(finite[:, None], 0.0)
    centre = (codes / finite.sum().clamp(min=1)).sum(0)  # divided first: the sum of all codes may overflow
    centred = (codes - centre).where(finite[:, None], 0.0)
    bias = (0.5 * centred.square().sum(-1)).where(finite, torch.inf)
    weights = torch.cat([-centred, bias[:, None]], -1)
    absent = torch.cat([centred.new_zeros(padding, dim), centred.new_full((padding, 1), torch.inf)], -1)
    return _Packed(centre, torch.cat([weights, absent]), _largest_lengths(centred).amax(), group)


def _search_rows(x: Tensor, packed: _Packed) -> tuple[Tensor, Tensor]:
    """Return indices [R] of finite rows [R, D], and which of them are uncertain, [R] bool."""
    centred = x - packed.centre
    # A column of ones adds the bias inside the product: `addmm` would first write it to every row of the result.
    augmented = torch.cat([centred, torch.ones_like(centred[:, :1])], -1)
    minima = _group_minima(augmented, packed)
    return _decide(augmented, minima, _threshold(centred, minima.amin(-1), packed), packed)


def _threshold(centred: Tensor, smallest: Tensor, packed: _Packed) -> Tensor:
    """Return the largest score that the nearest code of each row may have, [R], from the smallest one, by (22)."""
    length, radius = _largest_lengths(centred), packed.radius
    scale = length * radius + radius.square()
    absolute = 2 * SMALLEST_FLOAT32 * (2 + length + radius)
    bound = (centred.shape[1] + EXTRA_ROUNDINGS) * (ROUNDOFF_FLOAT32 * scale + absolute)
    return (smallest + CANDIDATE_MARGIN * bound).where(scale <= LARGEST_SCORE, -torch.inf)


def _largest_lengths(vectors: Tensor) -> Tensor:
    """Return ‖v‖ of vectors [..., D] in float32, increased by what rounding and underflow of squares may take."""
    dim = vectors.shape[-1]
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    underflow: float = (dim * SMALLEST_FLOAT32) ** 0.5
    return length * (1 + (dim + EXTRA_ROUNDINGS) * ROUNDOFF_FLOAT32) + underflow


def _group_minima(augmented: Tensor, packed: _Packed) -> Tensor:
    """Return the smallest score of each row in each group, [R, groups]."""
    step = max(1, CODES // packed.group) * packed.group
    minima = augmented.new_empty(augmented.shape[0], packed.weights.shape[0] // packed.group)
    buffer = augmented.new_empty(step * augmented.shape[0])  # one buffer for all tiles, which stays in the cache
    for start in range(0, packed.weights.shape[0], step):
        weights = packed.weights[start : start + step]
        scores = buffer[: augmented.shape[0] * weights.shape[0]].view(augmented.shape[0], -1)
        torch.mm(augmented, weights.T, out=scores)
        groups = slice(start // packed.group, start // packed.group + weights.shape[0] // packed.group)
        torch.amin(scores.view(scores.shape[0], -1, packed.group), -1, out=minima[:, groups])
    return minima


def _decide(augmented: Tensor, minima: Tensor, threshold: Tensor, packed: _Packed) -> tuple[Tensor, Tensor]:
    """Return indices [R], and which rows [R] do not have exactly one code below their threshold (indices
    invalid)."""
    # Ordered by group, so that each group is one matrix product.
    groups, rows = (minima <= threshold[:, None]).T.nonzero(as_tuple=True)
    near, first = torch.zeros_like(rows), torch.zeros_like(rows)
    for pairs, group in _pairs(groups, packed.group):
        codes = slice(group * packed.group, (group + 1) * packed.group)
        scores = augmented[rows[pairs]] @ packed.weights[codes].T
        close = scores <= threshold[rows[pairs]][:, None]
        near[pairs] = close.sum(-1)
        first[pairs] = reference.first_set(close) + codes.start
    total = torch.zeros(augmented.shape[0], dtype=torch.int64, device=augmented.device).index_add_(0, rows, near)
    indices = torch.zeros_like(total).index_copy_(0, rows[near > 0], first[near > 0])
    return indices, total != 1


def _decided_exactly(x: Tensor, codebook: Tensor) -> Tensor:
    """Return indices [R] of rows [R, D], found as in the reference."""
    exact = reference.pack(wide(codebook))
    step = max(1, PAIR_BUDGET // max(codebook.shape))
    found = [reference.nearest_rows(wide(block), exact) for block in torch.split(x, step)]
    return torch.cat(found).to(x.device)


def _pairs(groups: Tensor, size: int) -> Iterator[tuple[slice, int]]:
    """Yield slices of the pairs, each for one group and with at most PAIR_BUDGET scores."""
    values, counts = torch.unique_consecutive(groups, return_counts=True)
    start = 0
    for group, count in zip(values.tolist(), counts.tolist(), strict=True):
        step = max(1, PAIR_BUDGET // size)
        for begin in range(start, start + count, step):
            yield slice(begin, min(begin + step, start + count)), group
        start += count
