"""The perplexity that some contracts return from each forward."""

from torch import Tensor, searchsorted


def perplexity(indices: Tensor) -> Tensor:
    """exp of the entropy of the codes in indices [N, num_codebooks], summed over codebooks: [], float32.

    The result is that of `quantizers.metrics.perplexity`, but as a tensor: a forward must not wait for a number.
    The count of each index comes from the sorted indices, so memory is O(N) at any codebook size. Index −1 does
    not count. There is no gradient.
    """
    columns = indices.t().contiguous()
    ordered = columns.sort(-1).values
    counts = searchsorted(ordered, columns, right=True) - searchsorted(ordered, columns)
    counted = columns >= 0
    total = counted.sum(-1, keepdim=True).clamp(min=1)
    information = -(counts / total).log().where(counted, 0.0)
    return (information / total).sum(-1).exp().sum()
