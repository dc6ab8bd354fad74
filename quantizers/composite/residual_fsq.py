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
from quantizers.scalar.normalized_fsq import NormalizedFSQ

# A change of z's last bit moves tanh(z) by up to 0.45 · 2⁻²³, and each of the two tanh rounds by up to 2⁻²⁴:
# together below 2⁻²²·⁴. A uniform tanh(z) lies that near to a boundary of a channel's code with probability
# 2⁻²²·⁴ / step. Summed over this stage and the earlier ones, whose steps are larger by f each, that is
# 2⁻⁸·⁴ · f / (f − 1) < 1.5 %.
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
    normalize: bool = False,
    **options: Any,
) -> ResidualQuantizer:
    """Build a residual quantizer whose stages are ever finer FSQ grids.

    FSQ bounds its input, so plain FSQ stages would take the tanh of ever smaller residuals and round it on the
    same coarse grid. Here z is bounded once, each grid spans one cell of the grid before it, and the stages round
    without a bound.

    With L levels in a channel, stage i divides its residual by s_i:

        s_0 = 1, s_{i+1} = s_i / (2⌊L/2⌋), half a step of the grid before

    After n stages with odd level counts |tanh(z) − value| ≤ s_n. With `learn_scales=True` the scales adapt.

    **Many stages.** float32 has 2⁻²⁴ between the numbers below one, and its tanh rounds: with steps not far above
    that the codes would be those of rounding errors. So the last step, s_{n−1} / ⌊L/2⌋, is at least 2⁻¹⁴. If n
    stages would go below it, such as six stages of eight levels, their scales fall by less, s_{i+1} = s_i / f with
    one f for all of them: the grids overlap, and each stage adds log₂ f bits per channel. Stages that would need
    f < 1.25 are refused; with eight levels, more than 38 stages.

    **Normalized stages.** With `normalize=True` each stage is a NormalizedFSQ, whose levels follow the running
    mean and standard deviation of the residuals that reach it. There is no tanh, and there are no scales to set;
    the value approximates z itself.

    Example:
        >>> import torch, quantizers
        >>> quantizer = quantizers.create("residual_fsq", 2, levels=[5, 5], num_quantizers=3)
        >>> x = torch.tensor([[0.3, -1.2]])
        >>> torch.tanh(x), quantizer(x).quantized
        (tensor([[ 0.2913, -0.8337]]), tensor([[ 0.2812, -0.8438]]))

    Args:
        dim: channels of x; where it differs from len(levels), x is projected.
        codebook_size, levels: for each stage, exactly one of the two, as for "fsq".
        num_quantizers: how many stages.
        normalize: whether the stages are NormalizedFSQ.
        options: further arguments of ResidualQuantizer; `scales` replaces the scales above, `entry` the tanh; with
            `normalize=True` both are None by default.

    Raises: ValueError for more stages, or more levels, than float32 can distinguish, and as ResidualQuantizer.

    Source: Zhu et al.: Robust Residual Finite Scalar Quantization, 2025 (arXiv 2508.15860).
    """
    check_forwarded(residual_fsq, options)
    chosen = tuple(levels_from("residual_fsq", codebook_size, levels))
    if normalize:
        normalized = [NormalizedFSQ(len(chosen), chosen) for _ in range(num_quantizers)]
        return ResidualQuantizer(dim, normalized, channel_dim=channel_dim, **options)
    stages = [FSQ(len(chosen), chosen, bound="clamp") for _ in range(num_quantizers)]
    if "scales" not in options:
        falls = [_fall(level, num_quantizers) for level in chosen]
        options = {**options, "scales": [[fall**-stage for fall in falls] for stage in range(num_quantizers)]}
    return ResidualQuantizer(dim, stages, channel_dim=channel_dim, **{"entry": nn.Tanh(), **options})


def _fall(level: int, stages: int) -> float:
    """The factor by which a channel's scale falls from stage to stage: 2⌊L/2⌋, or less where a step would be too
    fine.

    Raises: ValueError if the first step is finer than FINEST_STEP, or if the factor would be below LEAST_FALL.
    """
    half = level // 2
    ratio = 1 / (half * FINEST_STEP)  # of the first step to the finest
    if ratio < 1:
        raise ValueError(
            f"levels holds {level}, expected at most {int(2 / FINEST_STEP) + 1}: float32 cannot "
            "distinguish the codes of more levels from its own rounding"
        )
    most = 1 + math.floor(math.log(ratio, LEAST_FALL))
    if stages > most:
        raise ValueError(
            f"num_quantizers is {stages} with {level} levels in a channel, expected at most {most}: float32 "
            "cannot distinguish the codes of more stages from its own rounding. Use fewer stages, or 'residual', "
            "whose codes follow the residuals"
        )
    return min(2.0 * half, ratio ** (1 / (stages - 1))) if stages > 1 else 2.0 * half
