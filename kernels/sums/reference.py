"""The number of vectors of each code, and their sum."""

import torch
from torch import Tensor

from quantizers.kernels.common.vectors import compute_dtype


@torch.no_grad()
def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return how many vectors chose each code, and their sum; bit-equal from run to run.

    Args:
        x: [H, N, D] vectors.
        indices: [H, N] int64; vectors with index −1 do not count.

    Returns:
        counts [H, K] and sums [H, K, D], float32 (float64 for float64 input), accumulated in float64.
    """
    heads, n, d = x.shape
    bins = codebook_size + 1  # the last bin receives the vectors without a code
    offsets = torch.arange(heads, device=x.device)[:, None] * bins
    target = (indices.where(indices >= 0, codebook_size) + offsets).flatten()
    counts = torch.zeros(heads * bins, dtype=torch.int64, device=x.device)
    counts.index_add_(0, target, torch.ones_like(target))
    sums = torch.zeros(heads * bins, d, dtype=torch.float64, device=x.device)
    sums.index_add_(0, target, x.reshape(heads * n, d).double().where((indices >= 0).reshape(-1, 1), 0.0))
    dtype = compute_dtype(x)
    return (
        counts.view(heads, bins)[:, :-1].to(dtype),
        sums.view(heads, bins, d)[:, :-1].to(dtype),
    )


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
        exceeds the range of float32 takes none of its vectors.
    """
    counts, sums = code_sums(x, indices, cluster_size.shape[1])
    fits = sums.isfinite().all(-1)
    steps = (counts * fits).sum(-1, keepdim=True) > 0
    keep = torch.where(steps, decay, 1.0).to(cluster_size.dtype)
    counts = counts.where(fits, 0.0)
    sums = sums.where(fits[..., None], 0.0)
    return (
        keep * cluster_size + (1 - keep) * counts,
        keep[..., None] * embedding_sum + (1 - keep[..., None]) * sums,
    )
