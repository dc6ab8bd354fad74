"""Measures of codebook use, from the counts of its codes."""

import math

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least
from quantizers.kernels.common.wide import wide


def code_counts(indices: Tensor, codebook_size: int) -> Tensor:
    """Count how often each code occurs in `indices` [...], as int64 [K]. Index −1 does not count.

    The sum of the counts of several batches gives the counts of a whole data set.

        >>> import torch
        >>> from quantizers import metrics
        >>> counts = metrics.code_counts(torch.tensor([0, 0, 3, -1]), codebook_size=4)
        >>> counts.tolist(), metrics.utilization(counts)
        ([2, 0, 0, 1], 0.5)

    Raises: IndexError for an index of at least K.
    """
    check_at_least("codebook_size", codebook_size, 1)
    chosen = indices[indices >= 0]
    if chosen.numel() and chosen.max() >= codebook_size:
        raise IndexError(f"index {int(chosen.max())} is outside a codebook of {codebook_size} codes")
    return torch.bincount(chosen, minlength=codebook_size)


def utilization(counts: Tensor) -> float:
    """Return the fraction of codes that occur at all, 0 to 1."""
    return float(wide(counts > 0).mean())


def entropy(counts: Tensor) -> float:
    """Return the entropy of the code distribution, −Σ p log₂ p, in bits per code.

    No static entropy coder can spend fewer bits on average.
    """
    p = wide(counts) / wide(counts.sum()).clamp(min=1)
    return float(torch.special.entr(p).sum()) / math.log(2)


def perplexity(counts: Tensor) -> float:
    """Return 2^entropy, 1 to K: the number of equally likely codes that have the same entropy."""
    return float(2.0 ** entropy(counts))
