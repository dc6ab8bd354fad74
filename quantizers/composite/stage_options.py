"""Options of a residual quantizer that have one value for each stage."""

import math
from collections.abc import Sequence
from typing import Any

Scales = Sequence[float] | Sequence[Sequence[float]]


def check_stage_scales(scales: Scales | None, stages: int, dim: int) -> list[list[float]]:
    """The scales as [stages][dim]; ones for None."""
    if scales is None:
        return [[1.0] * dim] * stages
    if len(scales) != stages:
        raise ValueError(f"got {len(scales)} scales for {stages} stages; expected one per stage")
    rows = [[float(scale)] * dim if isinstance(scale, int | float) else [*map(float, scale)] for scale in scales]
    for row in rows:
        if len(row) != dim:
            raise ValueError(
                f"scales hold {len(row)} numbers for a stage; expected one, or one for each of {dim} channels"
            )
        for scale in row:
            if not 0 < scale < math.inf:
                raise ValueError(f"scales hold {scale!r}, expected finite numbers above 0")
    return rows


def check_sizes(sizes: list[Any], num_quantizers: int | None, shared: bool) -> list[Any]:
    """`sizes`, if there is one for each stage."""
    if shared:
        raise ValueError(
            f"codebook_size is {sizes}, expected one number where shared=True: the stages share one codebook"
        )
    if not sizes:
        raise ValueError("codebook_size is empty, expected one size for each stage")
    if num_quantizers not in (None, len(sizes)):
        raise ValueError(
            f"codebook_size has {len(sizes)} sizes for num_quantizers={num_quantizers} stages, expected one for "
            "each"
        )
    return sizes
