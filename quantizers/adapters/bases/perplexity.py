"""The perplexity that some contracts return with each forward."""

from torch import Tensor, searchsorted


def perplexity(indices: Tensor) -> Tensor:
    """exp of the entropy of the codes in indices [N, num_codebooks], summed over codebooks: [], float32.

    As `quantizers.metrics.perplexity`, but a tensor: in a forward no number may be waited for. Each index's own
    count comes from the sorted indices, so that memory is O(N) at any codebook size. Index −1 does not count.
    Without a gradient.
    """
    columns = indices.t().contiguous()
    ordered = columns.sort(-1).values
    counts = searchsorted(ordered, columns, right=True) - searchsorted(ordered, columns)
    counted = columns >= 0
    total = counted.sum(-1, keepdim=True).clamp(min=1)
    information = -(counts / total).log().where(counted, 0.0)
    return (information / total).sum(-1).exp().sum()
