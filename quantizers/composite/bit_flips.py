"""Random flips of the bits of codes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.core.gradients import straight_through
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.scalar.grid import GridQuantizer


class FlippedScales(NamedTuple):
    """What `PyramidQuantizer.encode_with_flips` returns; both int64 [..., L]."""

    targets: Tensor
    """The indices that each scale should have, given the flipped ones before it."""
    indices: Tensor
    """The same with flipped bits."""


def check_bits(components: Sequence[RowQuantizer]) -> None:
    """Raises: ValueError unless every code has one bit for each channel."""
    for component in components:
        inside = component.evaluated
        if not isinstance(inside, GridQuantizer) or set(inside.level_counts) != {2}:
            raise ValueError(
                f"a component is {type(component).__name__}, whose codes are not bits; flips need a "
                "quantizer with two levels in each channel: BSQ, LFQ, or FSQ with levels of 2"
            )


def flip_bits(indices: Tensor, bits: int, probability: float | Tensor) -> Tensor:
    """Flip each of the `bits` bits of each index with a probability, one for all or one for each index [N].

    Index −1 stays.
    """
    drawn = torch.rand(*indices.shape, bits, device=indices.device)
    threshold = probability if isinstance(probability, float) else probability[..., None]
    weights = 2 ** torch.arange(bits, device=indices.device)
    pattern = ((drawn < threshold) * weights).sum(-1)
    return (indices ^ pattern).where(indices >= 0, indices)


def flipped_codes(component: RowQuantizer, codes: Tensor, flipped: Tensor) -> Tensor:
    """The codes of flipped indices, with the gradient that `codes`, those before the flip, pass on."""
    return straight_through(codes, component.nested_decode(flipped).detach())
