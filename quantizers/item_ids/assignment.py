"""New items with their nearest codes, before collisions are resolved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantizers.fitting import encode_vectors
from quantizers.fitting.report import OnProgress
from quantizers.item_ids.groups import group_sizes, shared_group_numbers
from quantizers.item_ids.levels import Levels
from quantizers.item_ids.reading import Reader
from quantizers.vectors import Vectors


@dataclass(frozen=True)
class Assignment:
    """New items, and what a policy needs to resolve their collisions."""

    levels: Levels
    codes: Tensor
    """The nearest codes of each new item, int64 [N, levels]."""
    errors: Tensor
    """‖x − value‖² for these codes, float64 [N]."""
    taken: Tensor
    """The IDs of the items that are there already, int64 [M, levels], or [M, levels + 1] with an extra level."""
    reader: Reader
    """Reads the embeddings of new items by position."""
    skipped: Tensor
    """The rows of the embeddings that are not finite and have no ID, int64, ascending."""

    def check_capacity(self) -> None:
        """Raises: ValueError if there are more items than IDs."""
        check_capacity(self.levels.sizes, len(self.codes) + len(self.taken))

    def collisions(self) -> Tensor:
        """Which new items have the codes of another item, bool [N]."""
        groups, taken_groups = shared_group_numbers(self.codes, self.taken[:, : self.codes.shape[1]])
        return group_sizes(torch.cat([groups, taken_groups]))[: len(groups)] > 1


def assign(
    levels: Levels, vectors: Vectors, taken: Tensor, batch_size: int, progress: OnProgress | None
) -> Assignment:
    """Encode all vectors in one pass.

    Memory is O(N · levels) beyond a block of `batch_size` vectors.

    Raises: ValueError for vectors of another dim than the quantizer's.
    """
    dim = levels.quantizer.dim
    if vectors.dim != dim:
        raise ValueError(f"{vectors.name} has {vectors.dim} channels, expected {dim}, the dim of the quantizer")
    codes, errors = [], []
    for block, indices in encode_vectors(levels.quantizer, vectors, batch_size=batch_size, progress=progress):
        codes.append(indices.reshape(len(block), -1).cpu())
        values = levels.decode(codes[-1]).cpu().double()
        errors.append((block.cpu().double() - values).square().sum(-1))
    all_codes, all_errors = torch.cat(codes), torch.cat(errors)
    finite = (all_codes >= 0).all(1)
    reader = Reader(vectors, finite.nonzero()[:, 0])
    return Assignment(levels, all_codes[finite], all_errors[finite], taken, reader, (~finite).nonzero()[:, 0])


def check_capacity(sizes: Sequence[int], items: int) -> None:
    """Raises: ValueError if there are more items than IDs of levels with these numbers of codes."""
    ids = math.prod(sizes)
    if items > ids:
        raise ValueError(
            f"there are {items} items for {ids} IDs ({' · '.join(map(str, sizes))} codes); expected no more items "
            "than IDs: take larger codebooks or more levels, or collisions='extra_level'"
        )
