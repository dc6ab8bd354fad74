"""The number of vectors of each code, and their sum, in a fixed order: no atomic additions.

A stable sort of the indices turns each code's vectors into a run of sorted rows. One program sums a run of at most
PIECE rows. A longer run is cut into pieces of PIECE rows, whose partial sums a second program adds in order, so
that a code with the whole batch is summed by as many programs as any other batch. The order of every addition
follows from shapes and indices alone, so the result is bit-equal from run to run.

Sums are accumulated in float64, as in the reference, and rounded once. The error before that is at most N·2⁻⁵³ of
the sum of magnitudes. An intermediate sum may exceed float32's range.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype

PIECE = 128  # most sorted rows that one program sums; longer runs are cut
LOAD = 1024  # elements that a program loads at a time
LARGEST_BLOCK = 128  # most channels per program


@torch.no_grad()
def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return how many vectors chose each code, and their sum; bit-equal from run to run.

    Args:
        x: [H, N, D] vectors, any floating dtype, on the GPU.
        indices: [H, N] int64; vectors with index −1 do not count.

    Returns:
        counts [H, K] and sums [H, K, D], float32 (float64 for float64 input), accumulated in float64.
    """
    counts, sums, _ = _sums(x, indices, codebook_size)
    return counts, sums


@torch.no_grad()
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
        decay: γ.

    Returns: the new N and m, in their dtypes. A head without a valid vector keeps its averages. A code whose sum s
    exceeds
        the range of float32 takes none of its vectors.
    """
    counts, sums, overflows = _sums(x, indices, cluster_size.shape[1])
    # Whether a head moves depends on all of its codes, so the averages need a separate launch.
    fits = ~overflows.any(-1)
    moves = ((counts > 0) & fits).any(-1, keepdim=True)
    keep = torch.where(moves, decay, 1.0).to(cluster_size.dtype)
    heads, codebook_size, d = sums.shape
    new_size = torch.empty_like(cluster_size, memory_format=torch.contiguous_format)
    new_sum = torch.empty_like(embedding_sum, memory_format=torch.contiguous_format)
    block_k, block_d = _tile(d)
    _average_kernel[(triton.cdiv(heads * codebook_size, block_k), triton.cdiv(d, block_d))](
        counts,
        sums,
        fits,
        keep,
        cluster_size.contiguous(),
        embedding_sum.contiguous(),
        new_size,
        new_sum,
        heads * codebook_size,
        codebook_size,
        d,
        block_k,
        block_d,
        enable_fp_fusion=True,
    )
    return new_size, new_sum


class _Runs(NamedTuple):
    """The vectors of all heads sorted by head and code, with code −1 last: bin h·(K + 1) + k, B bins in all."""

    order: Tensor  # [H·N] int64, row numbers in the order of their bins
    starts: Tensor  # [B + 1] int64, where each bin's rows start in `order`
    pieces: Tensor  # [B + 1] int64, where each bin's pieces start; a bin of at most PIECE rows has none
    owners: Tensor  # [P] int64, the bin of each piece, B for those beyond the last; P follows from N alone


def _runs(indices: Tensor, codebook_size: int) -> _Runs:
    heads, n = indices.shape
    size = codebook_size + 1
    bins = heads * size
    dtype = torch.int32 if bins < 2**31 else torch.int64  # half as many bits to sort
    device = indices.device
    offsets = torch.arange(heads, device=device)[:, None] * size
    keys = (indices.where(indices >= 0, codebook_size) + offsets).flatten().to(dtype)
    keys, order = torch.sort(keys, stable=True)
    starts = torch.searchsorted(keys, torch.arange(bins + 1, dtype=dtype, device=device))
    counts = starts.diff()
    cut = (counts > PIECE) & (torch.arange(bins, device=device) % size < codebook_size)
    pieces = torch.zeros_like(starts)
    torch.cumsum(((counts + (PIECE - 1)) // PIECE).where(cut, 0), 0, out=pieces[1:])
    # Each run has more than PIECE rows, so there are fewer than 2 / PIECE pieces per row.
    owners = torch.arange(2 * heads * n // PIECE, device=device)
    return _Runs(order, starts, pieces, torch.searchsorted(pieces[1:], owners, right=True))


def _sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return counts [H, K], sums [H, K, D], and which blocks of a code's channels are not finite [H, K, D /
    block].
    """
    heads, _, d = x.shape
    runs = _runs(indices, codebook_size)
    block_r, block_d = _tile(d)
    blocks, pieces, bins = triton.cdiv(d, block_d), len(runs.owners), heads * (codebook_size + 1)
    x, dtype = x.contiguous(), compute_dtype(x)
    partial = torch.empty(pieces, d, dtype=torch.float64, device=x.device)
    counts = torch.empty(heads, codebook_size, dtype=dtype, device=x.device)
    sums = torch.empty(heads, codebook_size, d, dtype=dtype, device=x.device)
    overflows = torch.empty(heads, codebook_size, blocks, dtype=torch.bool, device=x.device)
    if pieces:
        _piece_kernel[(pieces, blocks)](x, *runs, partial, bins, d, PIECE, block_r, block_d, enable_fp_fusion=True)
    _code_kernel[(heads * codebook_size, blocks)](
        x,
        runs.order,
        runs.starts,
        runs.pieces,
        partial,
        counts,
        sums,
        overflows,
        codebook_size,
        d,
        PIECE,
        block_r,
        block_d,
        enable_fp_fusion=True,
    )
    return counts, sums, overflows


def _tile(d: int) -> tuple[int, int]:
    """Return the rows and channels that one program loads at a time."""
    block_d = min(LARGEST_BLOCK, triton.next_power_of_2(d))
    return min(PIECE, LOAD // block_d), block_d


@triton.jit(do_not_specialize=["bins"])
def _piece_kernel(
    x_ptr,
    order_ptr,
    starts_ptr,
    pieces_ptr,
    owners_ptr,
    partial_ptr,
    bins,
    d,
    PIECE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The sum of one piece's rows."""
    piece = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners_ptr + piece)
    used = owner < bins  # only the device knows the number of pieces; programs beyond it are idle
    first = tl.load(starts_ptr + owner) + (piece - tl.load(pieces_ptr + owner)) * PIECE
    last = tl.minimum(first + PIECE, tl.load(starts_ptr + owner + 1, mask=used, other=0))
    total = _gather_sum(x_ptr, order_ptr, first, tl.where(used, last, first), d, BLOCK_R, BLOCK_D)
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    tl.store(partial_ptr + piece * d + channels, total, mask=used & (channels < d))


@triton.jit(do_not_specialize=["codebook_size"])
def _code_kernel(
    x_ptr,
    order_ptr,
    starts_ptr,
    pieces_ptr,
    partial_ptr,
    counts_ptr,
    sums_ptr,
    overflows_ptr,
    codebook_size,
    d,
    PIECE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One code's sum: over its rows if there are few, else over its pieces in order."""
    code = tl.program_id(0)
    owner = (code + code // codebook_size).to(tl.int64)  # one bin per head for the vectors without a code
    code = code.to(tl.int64)
    first, last = tl.load(starts_ptr + owner), tl.load(starts_ptr + owner + 1)
    count = last - first
    last = tl.where(count > PIECE, first, last)
    total = _gather_sum(x_ptr, order_ptr, first, last, d, BLOCK_R, BLOCK_D)
    first, last = tl.load(pieces_ptr + owner), tl.load(pieces_ptr + owner + 1)
    total += _range_sum(partial_ptr, first, last, d, BLOCK_R, BLOCK_D)

    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = total.to(sums_ptr.dtype.element_ty)
    tl.store(sums_ptr + code * d + channels, total, mask=channels < d)
    finite = (total > -float("inf")) & (total < float("inf"))  # neither is true for NaN
    broken = tl.max(tl.where(finite | (channels >= d), 0, 1), 0)
    tl.store(overflows_ptr + code * tl.num_programs(1) + tl.program_id(1), broken > 0)
    if tl.program_id(1) == 0:
        tl.store(counts_ptr + code, count.to(counts_ptr.dtype.element_ty))


@triton.jit
def _gather_sum(x_ptr, order_ptr, first, last, d, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ x[order[i]] over first ≤ i < last, in float64, [BLOCK_D] channels of this program."""
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
    for start in range(first, last, BLOCK_R):
        places = start + tl.arange(0, BLOCK_R)
        rows = tl.load(order_ptr + places, mask=places < last, other=0)
        mask = (places < last)[:, None] & (channels < d)[None, :]
        total += _wide(tl.load(x_ptr + rows[:, None] * d + channels[None, :], mask=mask, other=0.0))
    return tl.sum(total, 0)


@triton.jit
def _range_sum(partial_ptr, first, last, d, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ partial[i] over first ≤ i < last, [BLOCK_D] channels of this program."""
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
    for start in range(first, last, BLOCK_R):
        places = start + tl.arange(0, BLOCK_R)
        mask = (places < last)[:, None] & (channels < d)[None, :]
        total += tl.load(partial_ptr + places[:, None] * d + channels[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _wide(value):
    if value.dtype != tl.float64:
        value = value.to(tl.float32).to(tl.float64)
    return value


@triton.jit(do_not_specialize=["codes", "codebook_size"])
def _average_kernel(
    counts_ptr,
    sums_ptr,
    fits_ptr,
    keep_ptr,
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
    rows = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    channels = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    offsets = rows.to(tl.int64)[:, None] * d + channels[None, :]
    mask = (rows < codes)[:, None] & (channels < d)[None, :]
    fits = tl.load(fits_ptr + rows, mask=rows < codes, other=0) != 0
    keep = tl.load(keep_ptr + rows // codebook_size, mask=rows < codes, other=1.0)

    old = tl.load(embedding_ptr + offsets, mask=mask, other=0.0)
    new = tl.where(fits[:, None], tl.load(sums_ptr + offsets, mask=mask, other=0.0).to(old.dtype), 0.0)
    weight = keep[:, None].to(old.dtype)
    tl.store(new_embedding_ptr + offsets, weight * old + (1.0 - weight) * new, mask=mask)
    if tl.program_id(1) == 0:
        size = tl.load(size_ptr + rows, mask=rows < codes, other=0.0)
        count = tl.where(fits, tl.load(counts_ptr + rows, mask=rows < codes, other=0.0).to(size.dtype), 0.0)
        tl.store(new_size_ptr + rows, keep * size + (1.0 - keep) * count, mask=rows < codes)
