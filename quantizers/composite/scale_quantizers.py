"""The quantizers of the scales of a map, built from one line of options."""

from collections.abc import Mapping
from typing import Any

import torch

from quantizers.composite.repetition import repeated
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
    with torch.device("meta"):
        code_dim = create(quantizer, dim, **options).code_dim
    return repeated(lambda: create(quantizer, code_dim, **options), count, shared)
