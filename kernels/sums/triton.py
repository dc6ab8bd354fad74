"""The number of vectors of each code, and their sum, in a fixed order: no atomic additions of sums.

A stable sort of the indices turns each code's vectors into a run of sorted rows. One program sums a run of at most
PIECE rows. A longer run is cut into pieces of PIECE rows, whose partial sums a second program adds in order, so
that a code with the whole batch is summed by as many programs as any other batch. The order of every addition
follows from shapes and indices alone, so the result is bit-equal from run to run.

Sums are accumulated in float64, as in the reference, and rounded once. The error before that is at most N·2⁻⁵³ of
the sum of magnitudes. An intermediate sum may exceed float32's range.

All heads' rows are sorted by bin: head h has the bins h·(K + 1) + k, with k = K for vectors without a code. A run
that starts at row f and has c > P = PIECE rows puts its ⌈c/P⌉ pieces into the places from ⌊2f/P⌋ on. The next run
starts at row f + c, so its place is at least ⌊2f/P⌋ + ⌊2c/P⌋, and ⌊2c/P⌋ ≥ ⌈c/P⌉ because c > P: places never
collide, and there are ⌊2HN/P⌋ of them. Place s can only belong to the run that contains row (s + 1)·P/2 − 1, since
⌊2f/P⌋ ≤ s < ⌊2(f + c)/P⌋ implies f < (s + 1)·P/2 ≤ f + c. A program thus finds its piece without a prefix sum over
the codes.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import converted, load_tile
from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.common.vectors import compute_dtype

PIECE = 128  # most sorted rows that one program sums; longer runs are cut
LOAD = 1024  # elements that a program loads at a time
LARGEST_BLOCK = 128  # most channels that a program sums at a time
BINS = 256  # keys, or bins, per program


@replayed()
def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return how many vectors chose each code, and their sum; bit-equal from run to run.

    Args:
        x: [H, N, D] vectors, any floating dtype, on the GPU.
        indices: [H, N] int64; vectors with index −1 do not count.

    Returns:
        counts [H, K] and sums [H, K, D], float32 (float64 for float64 input), accumulated in float64.
    """
    sums = gathered_sums(x, indices, codebook_size)
    return sums.counts, sums.sums


@replayed()
def ema_code_sums(
    x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the moving averages γN + (1−γ)n and γm + (1−γ)s of `code_sums`: van den Oord et al. 2017, appendix
    A.1.

    Args:
        x: [H, N, D] vectors.
        indices: [H, N] int64, −1 for vectors that do not count.
        cluster_size: N [H, K].
        embedding_sum: m [H, K, D].
        decay: γ; as a tensor, 0-d on the GPU.

    Returns: the new N and m, in their dtypes. A head without a valid vector keeps its averages. A code whose sum s
        exceeds the range of float32 takes none of its vectors.
    """
    counts, sums, fits, moves, _ = gathered_sums(x, indices, cluster_size.shape[1])
    if not isinstance(decay, Tensor):
        decay = x.new_full((), decay, dtype=torch.float64)
    heads, codebook_size, d = sums.shape
    new_size = torch.empty_like(cluster_size, memory_format=torch.contiguous_format)
    new_sum = torch.empty_like(embedding_sum, memory_format=torch.contiguous_format)
    block_k, block_d = _tile(d)
    codes, blocks = heads * codebook_size, triton.cdiv(d, block_d)
    # Whether a head moves depends on all of its codes, so the averages need a launch of their own.
    _average_kernel[(triton.cdiv(codes, block_k) * blocks,)](
        counts,
        sums,
        fits,
        moves,
        decay,
        cluster_size.contiguous(),
        embedding_sum.contiguous(),
        new_size,
        new_sum,
        codes,
        codebook_size,
        d,
        block_k,
        block_d,
        enable_fp_fusion=True,
    )
    return new_size, new_sum


class Sums(NamedTuple):
    """The sums of `code_sums`, and what a moving average of them needs."""

    counts: Tensor  # [H, K]
    sums: Tensor  # [H, K, D]
    fits: Tensor  # int32 [H, K], whether a code's sum is finite
    moves: Tensor  # int32 [H], whether a head has such a sum of at least one vector
    totals: Tensor | None  # float64, partial sums of `cluster_size`


def gathered_sums(x: Tensor, indices: Tensor, codebook_size: int, cluster_size: Tensor | None = None) -> Sums:
    """Return the sums of `code_sums`, also beyond the range of their dtype.

    Args:
        cluster_size: optional, [K]; one of the kernels has the time to sum it in parts.
    """
    heads, n, d = x.shape
    device, dtype = x.device, compute_dtype(x)
    bins = heads * (codebook_size + 1)
    # Half as many bits to sort where they are enough.
    keys = torch.empty(heads * n, dtype=torch.int32 if bins < 2**31 else torch.int64, device=device)
    if n:
        _key_kernel[(heads * triton.cdiv(n, BINS),)](indices, *indices.stride(), keys, n, codebook_size, BINS)
    keys, order = torch.sort(keys, stable=True)
    starts = torch.empty(bins + 1, dtype=torch.int64, device=device)
    moves = torch.empty(heads, dtype=torch.int32, device=device)
    programs = triton.cdiv(bins + 1, BINS)
    totals = None if cluster_size is None else torch.empty(programs, dtype=torch.float64, device=device)
    codes = heads * codebook_size
    steps = (heads * n).bit_length()
    _start_kernel[(programs,)](
        keys, starts, moves, cluster_size, totals, heads * n, bins + 1, heads, codes, steps, BINS
    )
    x, steps_of_x = _in_rows(x)
    block_r, block_d = _tile(d)
    pieces = 2 * heads * n // PIECE
    partial = torch.empty(pieces, d, dtype=torch.float64, device=device)
    counts = torch.empty(heads, codebook_size, dtype=dtype, device=device)
    sums = torch.empty(heads, codebook_size, d, dtype=dtype, device=device)
    fits = torch.empty(heads, codebook_size, dtype=torch.int32, device=device)
    sizes = (n, codebook_size, d, PIECE, block_r, block_d)
    if pieces:
        grid = (pieces * triton.cdiv(d, block_d),)
        _piece_kernel[grid](x, *steps_of_x, keys, order, starts, partial, *sizes, enable_fp_fusion=True)
    _code_kernel[(codes,)](
        x,
        *steps_of_x,
        order,
        starts,
        partial,
        counts,
        sums,
        fits,
        moves,
        *sizes,
        num_warps=_warps(block_d),
        enable_fp_fusion=True,
    )
    return Sums(counts, sums, fits, moves, totals)


def _in_rows(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return x [H, N, D], copied if needed, and the distances between heads and between vectors in units of D."""
    d = x.shape[2]
    head, row, channel = x.stride()
    if head % d or row % d or (channel != 1 and d > 1):
        x = x.contiguous()
        head, row, _ = x.stride()
    return x, (head // d, row // d)


def _tile(d: int) -> tuple[int, int]:
    """Return the rows and channels that one program loads at a time."""
    block_d = min(LARGEST_BLOCK, triton.next_power_of_2(d))
    return min(PIECE, LOAD // block_d), block_d


def _warps(block_d: int) -> int:
    """Return the warps of a program of the code kernel; four would spill registers for some narrow tiles."""
    return 8 if block_d <= 16 else 4


@launched
@triton.jit(do_not_specialize=["stride_h", "stride_n", "n", "codebook_size"])
def _key_kernel(indices_ptr, stride_h, stride_n, bins_ptr, n, codebook_size, BINS: tl.constexpr):
    """The bin of each vector."""
    tiles = tl.cdiv(n, BINS)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    places = (tl.program_id(0) % tiles).to(tl.int64) * BINS + tl.arange(0, BINS)
    index = tl.load(indices_ptr + head * stride_h + places * stride_n, mask=places < n, other=0)
    key = tl.where(index >= 0, index, codebook_size) + head * (codebook_size + 1)
    tl.store(bins_ptr + head * n + places, key.to(bins_ptr.dtype.element_ty), mask=places < n)


@launched
@triton.jit(do_not_specialize=["count", "bins", "heads", "codes", "steps"])
def _start_kernel(
    bins_ptr, starts_ptr, moves_ptr, size_ptr, totals_ptr, count, bins, heads, codes, steps, BINS: tl.constexpr
):
    """The number of keys below each bin, which is where its run starts, in `steps` steps of bisection.

    There are more bins than codes, so the programs can also sum the sizes of all codes.
    """
    bin = tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
    low = tl.zeros([BINS], tl.int64)
    high = low + count
    for _ in range(steps):
        middle = (low + high) >> 1
        below = tl.load(bins_ptr + middle, mask=low < high, other=0) < bin
        low, high = tl.where((low < high) & below, middle + 1, low), tl.where((low < high) & ~below, middle, high)
    tl.store(starts_ptr + bin, low, mask=bin < bins)
    tl.store(moves_ptr + bin, 0, mask=bin < heads)  # set again by the codes whose sums are finite
    if size_ptr is not None:
        size = converted(tl.load(size_ptr + bin, mask=bin < codes, other=0), tl.float64)
        tl.store(totals_ptr + tl.program_id(0), tl.sum(size))


@launched
@triton.jit(do_not_specialize=["head_step", "row_step", "n", "codebook_size"])
def _piece_kernel(
    x_ptr,
    head_step,
    row_step,
    bins_ptr,
    order_ptr,
    starts_ptr,
    partial_ptr,
    n,
    codebook_size,
    d,
    PIECE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The sum of the rows of one piece."""
    blocks = tl.cdiv(d, BLOCK_D)
    piece, channel = (tl.program_id(0) // blocks).to(tl.int64), (tl.program_id(0) % blocks) * BLOCK_D
    owner = tl.load(bins_ptr + (piece + 1) * (PIECE // 2) - 1).to(tl.int64)
    start, last = tl.load(starts_ptr + owner), tl.load(starts_ptr + owner + 1)
    first = start + (piece - 2 * start // PIECE) * PIECE
    head = owner // (codebook_size + 1)
    used = (last - start > PIECE) & (first < last) & (owner - head * (codebook_size + 1) < codebook_size)
    last = tl.where(used, tl.minimum(first + PIECE, last), first)  # programs without a piece are idle
    x_ptr += head * (head_step - n * row_step.to(tl.int64)) * d
    total = _gather_sum(x_ptr, row_step, order_ptr, first, last, channel, d, BLOCK_R, BLOCK_D)
    channels = channel + tl.arange(0, BLOCK_D)
    tl.store(partial_ptr + piece * d + channels, total, mask=channels < tl.where(used, d, 0))


@launched
@triton.jit(do_not_specialize=["head_step", "row_step", "n", "codebook_size"])
def _code_kernel(
    x_ptr,
    head_step,
    row_step,
    order_ptr,
    starts_ptr,
    partial_ptr,
    counts_ptr,
    sums_ptr,
    fits_ptr,
    moves_ptr,
    n,
    codebook_size,
    d,
    PIECE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One code's sum: over its rows if there are few, else over its pieces in order."""
    head = (tl.program_id(0) // codebook_size).to(tl.int64)
    code = tl.program_id(0).to(tl.int64)
    owner = code + head  # one bin per head for the vectors without a code
    first, last = tl.load(starts_ptr + owner), tl.load(starts_ptr + owner + 1)
    count = last - first
    pieces = tl.where(count > PIECE, (count + (PIECE - 1)) // PIECE, 0)
    piece = 2 * first // PIECE
    last = tl.where(count > PIECE, first, last)
    x_ptr += head * (head_step - n * row_step.to(tl.int64)) * d
    infinite = tl.zeros([BLOCK_D], tl.int32)
    for channel in range(0, d, BLOCK_D):
        total = _gather_sum(x_ptr, row_step, order_ptr, first, last, channel, d, BLOCK_R, BLOCK_D)
        total += _range_sum(partial_ptr, piece, piece + pieces, channel, d, BLOCK_R, BLOCK_D)
        total = total.to(sums_ptr.dtype.element_ty)
        channels = channel + tl.arange(0, BLOCK_D)
        tl.store(sums_ptr + code * d + channels, total, mask=channels < d)
        finite = (total > -float("inf")) & (total < float("inf"))  # neither is true for NaN
        infinite = tl.maximum(infinite, tl.where(finite, 0, 1))
    fits = tl.max(infinite, 0) == 0
    tl.store(fits_ptr + code, fits.to(tl.int32))
    tl.store(counts_ptr + code, count.to(counts_ptr.dtype.element_ty))
    tl.store(moves_ptr + head, 1, mask=fits & (count > 0))  # all programs that write, write the same value


@triton.jit
def _gather_sum(x_ptr, row_step, order_ptr, first, last, channel, d, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ x[order[i]] over first ≤ i < last, in float64, for BLOCK_D channels."""
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
    for start in range(first, last, BLOCK_R):
        places = start + tl.arange(0, BLOCK_R)
        rows = tl.load(order_ptr + places, mask=places < last, other=0)
        total += load_tile(x_ptr + rows * row_step * d, places < last, channel, d, 1, BLOCK_D)
    return tl.sum(total, 0)


@triton.jit
def _range_sum(partial_ptr, first, last, channel, d, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ partial[i] over first ≤ i < last, for BLOCK_D channels."""
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
    for start in range(first, last, BLOCK_R):
        places = start + tl.arange(0, BLOCK_R)
        total += load_tile(partial_ptr + places * d, places < last, channel, d, 1, BLOCK_D)
    return tl.sum(total, 0)


@launched
@triton.jit(do_not_specialize=["codes", "codebook_size"], do_not_specialize_on_alignment=["decay_ptr"])
def _average_kernel(
    counts_ptr,
    sums_ptr,
    fits_ptr,
    moves_ptr,
    decay_ptr,
    size_ptr,
    embedding_ptr,
    new_size_ptr,
    new_embedding_ptr,
    codes,
    codebook_size,
    d,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """keep · average + (1 − keep) · batch, in the dtype of the average."""
    blocks = tl.cdiv(d, BLOCK_D)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    channels = (tl.program_id(0) % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    offsets = rows[:, None] * d + channels[None, :]
    mask = (rows < codes)[:, None] & (channels < d)[None, :]
    fits = tl.load(fits_ptr + rows, mask=rows < codes, other=0) != 0
    moves = tl.load(moves_ptr + rows // codebook_size, mask=rows < codes, other=0) != 0
    keep = tl.where(moves, tl.load(decay_ptr).to(size_ptr.dtype.element_ty), 1.0)

    old = tl.load(embedding_ptr + offsets, mask=mask, other=0.0)
    new = tl.where(fits[:, None], tl.load(sums_ptr + offsets, mask=mask, other=0.0).to(old.dtype), 0.0)
    weight = keep[:, None].to(old.dtype)
    tl.store(new_embedding_ptr + offsets, weight * old + (1.0 - weight) * new, mask=mask)
    if tl.program_id(0) % blocks == 0:
        size = tl.load(size_ptr + rows, mask=rows < codes, other=0.0)
        count = tl.where(fits, tl.load(counts_ptr + rows, mask=rows < codes, other=0.0).to(size.dtype), 0.0)
        tl.store(new_size_ptr + rows, keep * size + (1.0 - keep) * count, mask=rows < codes)
