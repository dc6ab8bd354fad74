"""Residual FSQ: a residual quantizer whose stages are ever finer grids."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.arguments.checks import Level, Size
from quantizers.core.arguments.forwarding import Computed, check_forwarded, forwards
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register
from quantizers.scalar.fsq import FSQ
from quantizers.scalar.levels import levels_from

# A change of z's last bit moves tanh(z) by up to 0.45 · 2⁻²³, and each of the two tanh rounds by up to 2⁻²⁴:
# together below 2⁻²²·⁴. A boundary of a channel's code lies within that of a uniform tanh(z) with probability
# 2⁻²²·⁴ / step; summed over this stage and those before, whose steps are larger by f each, 2⁻⁸·⁴ · f / (f − 1) <
# 1.5 %.
FINEST_STEP = 2.0**-14
LEAST_FALL = 1.25


@register("residual_fsq")
@forwards(ResidualQuantizer, entry=Computed("nn.Tanh()"), scales=Computed("from the levels"))
@checked
def residual_fsq(
    dim: Size,
    codebook_size: int | None = None,
    levels: Sequence[Level] | None = None,
    *,
    num_quantizers: Size = 2,
    channel_dim: int = -1,
    **options: Any,
) -> ResidualQuantizer:
    """Residual FSQ whose grids become finer: each stage's spans the cell of the one before.

    FSQ bounds what it gets, so that stages of it, one after another, would take the tanh of ever smaller residuals
    and round it on the same coarse grid. Here z is bounded once; stage i divides by s_i, where s_0 = 1 and
    s_{i+1} = s_i / (2⌊L/2⌋), half a step of the grid before, and rounds without a bound. After n stages of odd
    level counts |tanh(z) − value| ≤ s_n. With `learn_scales=True` the scales adapt (Zhu et al.: Robust Residual
    Finite Scalar Quantization, 2025, arXiv 2508.15860).

    **Many stages.** float32 has 2⁻²⁴ between the numbers below one, and its tanh rounds: steps that are not far
    above that would give codes of rounding. So the last step, s_{n−1} / ⌊L/2⌋, is at least 2⁻¹⁴. Where n stages
    would go below it, as six of eight levels, their scales fall by less, s_{i+1} = s_i / f with one f for all of
    them: the grids overlap, and each stage adds log₂ f bits a channel. Stages that would need f < 1.25 are
    refused; with eight levels more than 38.

    Args:
        dim: channels of x; where it differs from len(levels), x is projected.
        codebook_size, levels: of each stage, one of the two, as for "fsq".
        options: of ResidualQuantizer; with `scales` those above are not used.

    Raises: ValueError for more stages, or more levels, than float32 tells apart, and as ResidualQuantizer.
    """
    check_forwarded(residual_fsq, options)
    chosen = tuple(levels_from("residual_fsq", codebook_size, levels))
    stages = [FSQ(len(chosen), chosen, bound="clamp") for _ in range(num_quantizers)]
    if "scales" not in options:
        falls = [_fall(level, num_quantizers) for level in chosen]
        options = {**options, "scales": [[fall**-place for fall in falls] for place in range(num_quantizers)]}
    return ResidualQuantizer(dim, stages, channel_dim=channel_dim, **{"entry": nn.Tanh(), **options})


def _fall(level: int, stages: int) -> float:
    """By what the scale of a channel falls from stage to stage: 2⌊L/2⌋, or less, so that no step is too fine.

    Raises: ValueError for more levels than there are finest steps, and where the fall would be below LEAST_FALL.
    """
    half = level // 2
    room = 1 / (half * FINEST_STEP)  # of the first step over the finest
    if room < 1:
        raise ValueError(
            f"levels holds {level}, expected at most {int(2 / FINEST_STEP) + 1}: float32 does not tell the "
            "codes of more from its rounding"
        )
    most = 1 + math.floor(math.log(room, LEAST_FALL))
    if stages > most:
        raise ValueError(
            f"num_quantizers is {stages}, of {level} levels in a channel: expected at most {most}, for float32 "
            "does not tell the codes of more stages from its rounding. Take fewer stages, or 'residual', whose "
            "codes follow the residuals"
        )
    return min(2.0 * half, room ** (1 / (stages - 1))) if stages > 1 else 2.0 * half
