"""The fraction of codes in use that some contracts return from each forward."""

from collections.abc import Sequence

from torch import Tensor

from quantizers.kernels.common.vectors import integers


def utilization(indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """The fraction of codes that occur in indices [N, num_codebooks], the mean over codebooks: [], float32.

    The result is that of `quantizers.metrics.utilization`, but as a tensor: a forward must not wait for a number.
    Sorted indices show which of them are new, so memory is O(N) at any codebook size. Index −1 does not count.

    Args:
        sizes: K of each codebook.
    """
    ordered = indices.t().sort(-1).values
    is_new = ordered.diff(prepend=ordered.new_full((len(ordered), 1), -1)) > 0
    return (is_new.sum(-1) / integers(sizes, indices.device)).mean()
