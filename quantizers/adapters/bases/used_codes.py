"""How many codes a batch uses, which some contracts return from each forward."""

from torch import Tensor, stack

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.core.base import Quantizer


def used_codes(indices: Tensor) -> Tensor:
    """The number of different indices in each column of [N, num_codebooks]: int64 [num_codebooks].

    Index −1 does not count. The result is a tensor: a forward must not wait for a number.
    """
    ordered = indices.t().sort(-1).values
    steps = ordered.diff(dim=-1, prepend=ordered.new_full((len(ordered), 1), -1))
    return (steps > 0).sum(-1)


def used_percentage(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """The percentage of codes that occur in a quantizer's indices, the mean over its codebooks: [], float32."""
    columns = flat_indices(quantizer, indices).reshape(-1, quantizer.num_codebooks)
    counts = used_codes(columns).unbind()
    shares = [count / size for count, size in zip(counts, quantizer.codebook_sizes, strict=True)]
    return 100 * stack(shares).mean()
