"""How much of a codebook a batch uses, which some contracts return from each forward.

The results are tensors: a forward must not wait for a number. Counts come from sorted indices, so memory is O(N)
at any codebook size. Index −1 does not count, and there is no gradient.
"""

from torch import Tensor, searchsorted

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.core.base import Quantizer
from quantizers.kernels.common.vectors import integers


def perplexity(indices: Tensor) -> Tensor:
    """exp of the entropy of the codes in indices [N, num_codebooks], summed over codebooks: [], float32.

    It is that of `quantizers.metrics.perplexity`.
    """
    columns = indices.t().contiguous()
    ordered = columns.sort(-1).values
    counts = searchsorted(ordered, columns, right=True) - searchsorted(ordered, columns)
    counted = columns >= 0
    total = counted.sum(-1, keepdim=True).clamp(min=1)
    information = -(counts / total).log().where(counted, 0.0)
    return (information / total).sum(-1).exp().sum()


def used_codes(indices: Tensor) -> Tensor:
    """The number of different codes in each column of indices [N, num_codebooks]: int64 [num_codebooks]."""
    ordered = indices.t().sort(-1).values
    is_new = ordered.diff(prepend=ordered.new_full((len(ordered), 1), -1)) > 0
    return is_new.sum(-1)


def utilization(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The fraction of codes that occur in a quantizer's indices, the mean over its codebooks: [], float32.

    It is that of `quantizers.metrics.utilization`.
    """
    columns = flat_indices(quantizer, indices).reshape(-1, quantizer.num_codebooks)
    return (used_codes(columns) / integers(quantizer.codebook_sizes, indices.device)).mean()
