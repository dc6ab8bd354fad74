"""How a codebook is used, from the counts of its codes."""

import math

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least


def code_counts(indices: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs in `indices` [...]: int64 [K]. Index −1 does not count.

    Counts add: sum those of several batches for a whole data set.

    Raises: IndexError for an index outside [−1, K).
    """
    check_at_least("codebook_size", codebook_size, 1)
    chosen = indices[indices >= 0]
    if chosen.numel() and chosen.max() >= codebook_size:
        raise IndexError(f"index {int(chosen.max())} is outside a codebook of {codebook_size} codes")
    return torch.bincount(chosen, minlength=codebook_size)


def utilization(counts: Tensor) -> float:
    """The fraction of codes that occur at all, 0 to 1."""
    return float((counts > 0).double().mean())


def entropy(counts: Tensor) -> float:
    """Entropy of the code distribution, −Σ p log₂ p, in bits a code: the least a static coder can spend."""
    p = counts.double() / counts.sum().clamp(min=1)
    return float(torch.special.entr(p).sum()) / math.log(2)


def perplexity(counts: Tensor) -> float:
    """2^entropy: how many equally likely codes would carry as much, 1 to K."""
    return float(2.0 ** entropy(counts))
