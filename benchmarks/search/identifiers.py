"""The numbers of semantic IDs: collisions, distortion, and whether prefixes keep neighbours together.

The IDs of a set of items are their codes, int64 [N, levels], from the coarsest level.
"""

from torch import Tensor


def collision_rate(codes: Tensor) -> float:
    """Return the share of items that share their ID with another item."""
    _, groups, sizes = codes.unique(dim=0, return_inverse=True, return_counts=True)
    return (sizes[groups] > 1).double().mean().item()


def prefix_agreement(codes: Tensor, items: Tensor, others: Tensor, length: int) -> float:
    """Return the share of pairs (items[i], others[i]) whose IDs have the same first `length` codes."""
    return (codes[items, :length] == codes[others, :length]).all(1).double().mean().item()


def chance_agreement(codes: Tensor, length: int) -> float:
    """Return the probability that two items, drawn independently, have the same first `length` codes."""
    sizes = codes[:, :length].unique(dim=0, return_counts=True)[1].double()
    return (sizes / sizes.sum()).square().sum().item()


def numbers(codes: Tensor, items: Tensor, others: Tensor) -> dict[str, float | None]:
    """Return collisions and agreement of prefixes of one and two codes.

    Args: items, others: positions of items and of the nearest other item of each, int64 [P].
    """
    found: dict[str, float | None] = {"collisions": collision_rate(codes)}
    for length in (1, 2):
        short = codes.shape[1] < length
        found[f"prefix_{length}"] = None if short else prefix_agreement(codes, items, others, length)
        found[f"chance_{length}"] = None if short else chance_agreement(codes, length)
    return found
