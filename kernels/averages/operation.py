"""A step of EMA VQ's moving averages by kernels that write to its state, on a GPU in eager mode.

Elsewhere the state moves by PyTorch's own operations, those of reference.py, which a compiler fuses.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import on_device_of, runs_triton
from quantizers.kernels.sums.operation import EMA_CODE_SUMS


def runs_in_place(
    z: Tensor,
    indices: Tensor,
    embedding: Tensor,
    cluster_size: Tensor,
    embedding_sum: Tensor,
    decay: float | Tensor,
) -> bool:
    """Whether `average_codes_` can run for such arguments."""
    if isinstance(decay, Tensor) or not runs_triton(z, indices, embedding, cluster_size, embedding_sum):
        return False
    floating = (z, embedding, cluster_size, embedding_sum)
    return (
        z.dtype in (torch.float32, torch.float64)
        and len({tensor.dtype for tensor in floating}) == 1
        and len({tensor.device for tensor in (*floating, indices)}) == 1
        and all(tensor.is_contiguous() for tensor in floating[1:])
    )


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
    """Move the averages, and with them the codes, by equations (1) to (3) of kernels/averages/README.md, in place.

    Args: those for which `runs_in_place`.
        z: [N, D] float32 or float64.
        indices: [N] int64, −1 for vectors that do not count.
        embedding: e [K, D], of z's dtype. It stays as it is where no average changes.
        cluster_size: N [K].
        embedding_sum: m [K, D].
        previous: [K, D], receives the codes before the step.
        decay: γ. epsilon: ε.
        is_cosine: whether codes are compared with their averages by direction.
    """
    from quantizers.kernels.averages import triton

    EMA_CODE_SUMS.count("triton")
    # Autograd must see the writes of a kernel, as it sees those of an operation.
    torch.autograd.graph.increment_version([embedding, cluster_size, embedding_sum, previous])
    with on_device_of(z):
        triton.average_codes_(
            z, indices, embedding, cluster_size, embedding_sum, previous, decay, epsilon, is_cosine
        )
