"""The number of vectors of each code, and their sum, on a CPU; see sums.cpp."""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import Argument, call, suffix, threads
from quantizers.kernels.common.vectors import compute_dtype


def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """As in kernels/sums/reference.py; bit-equal under any number of threads."""
    heads, _, dim = x.shape
    x, indices = x.detach().to(compute_dtype(x)).contiguous(), indices.contiguous()
    counts, sums = x.new_empty(heads, codebook_size), x.new_empty(heads, codebook_size, dim)
    for head in range(heads):
        vectors: list[Argument] = [x[head], indices[head], x.shape[1]]
        sizes: list[Argument] = [codebook_size, dim, threads(x[head].numel())]
        call("quantizers_code_sums" + suffix(x), [*vectors, *sizes, counts[head], sums[head]])
    return counts, sums


def ema_code_sums(
    x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: float | Tensor
) -> tuple[Tensor, Tensor]:
    """As in kernels/sums/reference.py."""
    dtype = compute_dtype(x, cluster_size, embedding_sum)
    x, indices = x.detach().to(dtype).contiguous(), indices.contiguous()
    old = [average.detach().to(dtype).contiguous() for average in (cluster_size, embedding_sum)]
    new = [torch.empty_like(average) for average in old]
    for head in range(x.shape[0]):
        averages = [average[head] for average in old]
        sizes = [*old[1].shape[1:], float(decay), threads(x[head].numel())]
        outputs = [average[head] for average in new]
        call(
            "quantizers_ema_code_sums" + suffix(x),
            [x[head], indices[head], x.shape[1], *averages, *sizes, *outputs],
        )
    return new[0].to(cluster_size.dtype), new[1].to(embedding_sum.dtype)
