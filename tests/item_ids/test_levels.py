"""The search for the next code compares what `decode` gives."""

import pytest
import torch
from torch import Tensor

from quantizers.item_ids.groups import group_numbers
from quantizers.item_ids.levels import Levels
from tests.cases import CASES, DIM, Case, normal

PROJECTED = [
    Case("residual", {"stage_dim": 3}),
    Case("grouped", {"quantizer": "residual", "num_quantizers": 2, "stage_dim": 3}),
]
"""The bias of the projection out counts once, however many codebooks add to a value."""


def decoded(levels: Levels, prefix: Tensor, code: int) -> Tensor:
    """The vector [DIM] of a prefix and one more code."""
    return levels.decode(torch.tensor([[*prefix.tolist(), code]]))[0].double()


@pytest.mark.parametrize("case", [case for case in [*CASES, *PROJECTED] if case.has_codes], ids=str)
def test_distances_are_those_of_decoded_vectors(case: Case) -> None:
    levels = Levels(case.build().eval())
    x = normal(1, 6, DIM, dtype=torch.float32)
    indices = levels.quantizer.encode(x).reshape(len(x), -1)
    for level, size in enumerate(levels.sizes):
        prefixes = indices[:, :level]
        seen = torch.zeros(len(x), dtype=torch.int64)
        with torch.no_grad():
            for items, targets, codebook in levels.searches(x, prefixes, group_numbers(prefixes)):
                seen[items] += 1
                assert codebook.shape == (size, DIM)
                for item, target in zip(items.tolist(), targets.double(), strict=True):
                    code = (7 * item + 3) % size
                    value = decoded(levels, indices[item, :level], code)
                    # A few roundings to float32 of values of about this size, and those of a matrix product.
                    scale = 1 + float(x[item].abs().max() + value.abs().max() + codebook[code].abs().max())
                    error = (target - codebook[code].double()) - (x[item].double() - value)
                    assert error.abs().max() <= 32 * torch.finfo(torch.float32).eps * scale
        assert seen.tolist() == [1] * len(x)
