"""The quantizers of the scales of a map, built from one line of options."""

from collections.abc import Mapping
from typing import Any

from quantizers.core.base import Quantizer
from quantizers.core.registry import Builder, create


def scale_quantizers(
    quantizer: str | Builder, dim: int, options: Mapping[str, Any], *, count: int, shared: bool
) -> list[Quantizer]:
    """`count` quantizers of one kind, or the same one so many times, which have no projections of their own.

    Where a code has another number of channels than x, the quantizers are built for vectors in code space, so that
    x is projected once, before the first scale.

    Args:
        quantizer: the name, class or function, as for `create`.
        dim: channels of x.
        options: of the quantizer.
    """
    first = create(quantizer, dim, **options)
    if first.code_dim != dim:
        first = create(quantizer, first.code_dim, **options)
    others = [first if shared else create(quantizer, first.dim, **options) for _ in range(count - 1)]
    return [first, *others]
