"""Optimized product quantization: a product quantizer behind a rotation."""

from typing import Any

from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.repetition import STAGE_OPTIONS
from quantizers.composite.rotated import RotatedQuantizer
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.forwarding import forwards
from quantizers.core.arguments.options import checked
from quantizers.core.registry import Builder, register


@register("opq")
@forwards(GroupedQuantizer, others=f"each group; {STAGE_OPTIONS}")
@checked
def opq(
    dim: Size,
    *,
    quantizer: str | Builder = "vq",
    num_groups: Size = 2,
    shared: bool = False,
    channel_dim: int = -1,
    **options: Any,
) -> RotatedQuantizer:
    """Build a product quantizer ("grouped") behind a rotation that `initialize_from` fits, see RotatedQuantizer.

    Example:
        >>> import torch, quantizers
        >>> quantizer = quantizers.create("opq", 64, codebook_size=256, num_groups=8)
        >>> quantizer.encode(torch.randn(10, 64)).shape
        torch.Size([10, 8])

    Args:
        dim: channels of x, a multiple of `num_groups`.
        quantizer: the name, class or function of each group's quantizer, as for `create`.
        num_groups: how many groups, each with an index of its own.
        shared: one quantizer for all groups.
        channel_dim: axis of x's channels.
        options: dropout and dropout_by, see GroupedQuantizer; all others go to each group.

    Raises: ValueError if `num_groups` does not divide `dim`.

    Source: Ge, He, Ke, Sun: Optimized Product Quantization for Approximate Nearest Neighbor Search, CVPR 2013.
    """
    groups = GroupedQuantizer.from_options(
        dim, quantizer=quantizer, num_groups=num_groups, shared=shared, **options
    )
    return RotatedQuantizer(dim, groups, channel_dim=channel_dim)
