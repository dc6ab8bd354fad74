"""A step of EMA VQ's moving averages, in place: two kernels after those of the sums.

The codes depend on the total of the new sizes, hence the second kernel. Each program of the first leaves the sum
of its own, and each program of the second adds all of these in a fixed order: no atomic additions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.averages.reference import LARGEST_ROUNDING
from quantizers.kernels.common.triton.division import divide
from quantizers.kernels.common.triton.loads import converted, load_tile, store_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.sums.triton import gathered_sums

CODES = 32  # codes of a program
LARGEST_BLOCK = 32  # most channels that a program reads at a time
PARTS = 1024  # partial sums that a program reads at a time
_LARGEST_ROUNDING = tl.constexpr(LARGEST_ROUNDING)


@replayed()
def average_codes_(
    z: Tensor,
    indices: Tensor,
    embedding: Tensor,
    cluster_size: Tensor,
    embedding_sum: Tensor,
    previous: Tensor,
    decay: float,
    epsilon: float,
    is_cosine: bool,
) -> None:
    """As in kernels/averages/operation.py."""
    (codebook_size, d), block_d = embedding.shape, _block(embedding.shape[1])
    counts, sums, fits, moves, totals = gathered_sums(z[None], indices[None], codebook_size, cluster_size)
    assert totals is not None
    new_size, new_sum = torch.empty_like(cluster_size), torch.empty_like(embedding_sum)
    programs = triton.cdiv(codebook_size, CODES)
    new_totals = torch.empty(programs, dtype=torch.float64, device=z.device)
    changes = torch.empty(programs, dtype=torch.int32, device=z.device)
    _average_kernel[(programs,)](
        counts,
        sums,
        fits,
        moves,
        totals,
        embedding,
        cluster_size,
        embedding_sum,
        previous,
        new_size,
        new_sum,
        new_totals,
        changes,
        totals.numel(),
        codebook_size,
        d,
        decay,
        epsilon,
        is_cosine,
        PARTS,
        CODES,
        block_d,
    )
    _write_kernel[(programs,)](
        new_size,
        new_sum,
        new_totals,
        changes,
        embedding,
        cluster_size,
        embedding_sum,
        programs,
        codebook_size,
        d,
        epsilon,
        PARTS,
        CODES,
        block_d,
    )


def _block(d: int) -> int:
    """Return the channels that a program reads at a time."""
    block: int = min(LARGEST_BLOCK, triton.next_power_of_2(d))
    return block


@launched
@triton.jit(do_not_specialize=["parts", "codebook_size"])
def _average_kernel(
    counts_ptr,
    sums_ptr,
    fits_ptr,
    moves_ptr,
    totals_ptr,
    embedding_ptr,
    size_ptr,
    sum_ptr,
    previous_ptr,
    new_size_ptr,
    new_sum_ptr,
    new_totals_ptr,
    changes_ptr,
    parts,
    codebook_size,
    d,
    decay: tl.float64,
    EPSILON: tl.constexpr,  # not an argument: it would be the same in every call
    IS_COSINE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The new averages, and whether any of them changed; the codes before the step."""
    dtype: tl.constexpr = size_ptr.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = rows < codebook_size
    size = tl.load(size_ptr + rows, mask=inside, other=0)
    smoothed = _smoothed(size, _sum_of(totals_ptr, parts, PARTS), codebook_size, EPSILON)
    is_set = _is_set(embedding_ptr + rows * d, sum_ptr + rows * d, smoothed, inside, d, IS_COSINE, BLOCK_D)
    fits = tl.load(fits_ptr + rows, mask=inside, other=0) != 0
    moves = tl.load(moves_ptr) != 0
    keep = tl.where(moves, tl.full([BLOCK_K], decay, dtype), 1.0)

    count = tl.where(fits, converted(tl.load(counts_ptr + rows, mask=inside, other=0), dtype), 0.0)
    new_size = keep * size + (1.0 - keep) * count
    tl.store(new_size_ptr + rows, new_size, mask=inside)
    new_total = tl.sum(converted(tl.where(inside, new_size, 0.0), tl.float64))
    tl.store(new_totals_ptr + tl.program_id(0), new_total)
    changes = tl.where(inside & (new_size != size), 1, 0)
    for channel in range(0, d, BLOCK_D):
        code = load_tile(embedding_ptr + rows * d, inside, channel, d, 1, BLOCK_D, dtype)
        stored = load_tile(sum_ptr + rows * d, inside, channel, d, 1, BLOCK_D, dtype)
        batch = load_tile(sums_ptr + rows * d, inside & fits, channel, d, 1, BLOCK_D, dtype)
        old = tl.where(is_set[:, None], smoothed[:, None] * code, stored)
        new = keep[:, None] * old + (1.0 - keep[:, None]) * batch
        differs = (new != old) & (channel + tl.arange(0, BLOCK_D) < d)[None, :]
        changes = tl.maximum(changes, tl.max(differs.to(tl.int32), 1))
        store_tile(previous_ptr + rows * d, inside, channel, d, 1, code, BLOCK_D)
        store_tile(new_sum_ptr + rows * d, inside, channel, d, 1, new, BLOCK_D)
    tl.store(changes_ptr + tl.program_id(0), tl.max(tl.where(inside, changes, 0)))


@launched
@triton.jit(do_not_specialize=["parts", "codebook_size"])
def _write_kernel(
    new_size_ptr,
    new_sum_ptr,
    new_totals_ptr,
    changes_ptr,
    embedding_ptr,
    size_ptr,
    sum_ptr,
    parts,
    codebook_size,
    d,
    EPSILON: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The averages, and where any of them changed the codes."""
    dtype: tl.constexpr = size_ptr.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = rows < codebook_size
    size = tl.load(new_size_ptr + rows, mask=inside, other=0)
    tl.store(size_ptr + rows, size, mask=inside)
    smoothed = _smoothed(size, _sum_of(new_totals_ptr, parts, PARTS), codebook_size, EPSILON)
    changed = tl.zeros([BLOCK_K], tl.float64) + _sum_of(changes_ptr, parts, PARTS) > 0
    for channel in range(0, d, BLOCK_D):
        total = load_tile(new_sum_ptr + rows * d, inside, channel, d, 1, BLOCK_D, dtype)
        store_tile(sum_ptr + rows * d, inside, channel, d, 1, total, BLOCK_D)
        code = divide(total, tl.broadcast_to(smoothed[:, None], BLOCK_K, BLOCK_D))
        store_tile(embedding_ptr + rows * d, inside & changed, channel, d, 1, code, BLOCK_D)


@triton.jit
def _sum_of(parts_ptr, parts, PARTS: tl.constexpr):
    """The sum of some numbers, in float64 and in a fixed order."""
    total = tl.zeros([PARTS], tl.float64)
    for start in range(0, parts, PARTS):
        places = start + tl.arange(0, PARTS)
        total += tl.load(parts_ptr + places, mask=places < parts, other=0).to(tl.float64)
    return tl.sum(total)


@triton.jit
def _smoothed(size, total, codebook_size, EPSILON: tl.constexpr):
    """N̂ of equation (1), in the dtype of N."""
    spread = tl.full([1], EPSILON, tl.float64) * codebook_size.to(tl.float64)
    total = tl.zeros_like(size) + converted(total, size.dtype)
    return divide(size + EPSILON, total + converted(spread, size.dtype)) * total


@triton.jit
def _is_set(codes_ptr, sums_ptr, smoothed, inside, d, IS_COSINE: tl.constexpr, BLOCK_D: tl.constexpr):
    """Whether a code differs from its averages by more than rounding, equation (2); never if one is not finite."""
    dtype: tl.constexpr = smoothed.dtype
    largest = tl.zeros_like(smoothed)
    gap, broken = largest, largest
    ones = tl.full(smoothed.shape, 1.0, dtype)
    if IS_COSINE:
        sums_by, sums_norm = _length(sums_ptr, smoothed, inside, d, BLOCK_D)
        codes_by, codes_norm = _length(codes_ptr, ones, inside, d, BLOCK_D)
    for channel in range(0, d, BLOCK_D):
        average = _divided(sums_ptr, smoothed, inside, channel, d, BLOCK_D)
        code = load_tile(codes_ptr, inside, channel, d, 1, BLOCK_D, dtype)
        if IS_COSINE:
            average = average / sums_by[:, None] / sums_norm[:, None]
            code = code / codes_by[:, None] / codes_norm[:, None]
        scale = tl.maximum(tl.abs(average), tl.abs(code))
        broken = tl.maximum(broken, tl.max(tl.where((average == average) & (code == code), 0.0, 1.0), 1))
        largest = tl.maximum(largest, tl.max(scale, 1))
        gap = tl.maximum(gap, tl.max(tl.abs(average - code), 1))
    return (gap > largest * _LARGEST_ROUNDING) & (broken == 0)


@triton.jit
def _length(rows_ptr, divisor, inside, d, BLOCK_D: tl.constexpr):
    """The largest magnitude of rows that are divided, and the norm of what a division by that leaves; 1 for 0."""
    largest = tl.zeros_like(divisor)
    for channel in range(0, d, BLOCK_D):
        largest = tl.maximum(largest, tl.max(tl.abs(_divided(rows_ptr, divisor, inside, channel, d, BLOCK_D)), 1))
    largest = tl.where(largest > 0, largest, 1.0)
    squares = tl.zeros_like(divisor)
    for channel in range(0, d, BLOCK_D):
        scaled = _divided(rows_ptr, divisor, inside, channel, d, BLOCK_D) / largest[:, None]
        squares += tl.sum(scaled * scaled, 1)
    return largest, tl.where(squares > 0, tl.sqrt(squares), 1.0)


@triton.jit
def _divided(rows_ptr, divisor, inside, channel, d, BLOCK_D: tl.constexpr):
    """Some channels of rows, each divided by its divisor."""
    tile = load_tile(rows_ptr, inside, channel, d, 1, BLOCK_D, divisor.dtype)
    return divide(tile, tl.broadcast_to(divisor[:, None], tile.shape))
