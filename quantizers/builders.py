"""Quantizers made of parts, from one line of configuration."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from quantizers.base import Quantizer, check_at_least
from quantizers.fsp import FSP
from quantizers.fsq import FSQ, levels_for
from quantizers.grouped import GroupedQuantizer
from quantizers.multiscale import MultiScaleQuantizer
from quantizers.residual import ResidualQuantizer
from quantizers.simvq import SimVQ
from quantizers.vqbridge import VQBridge

Create = Callable[..., Quantizer]


def residual(
    create: Create,
    dim: int,
    *,
    quantizer: str | Create = "vq",
    num_quantizers: int = 4,
    stage_dim: int | None = None,
    shared: bool = False,
    channel_dim: int = -1,
    **options: Any,
) -> ResidualQuantizer:
    """A ResidualQuantizer of `num_quantizers` stages of one kind.

    Args:
        create: `quantizers.create`. quantizer: its first argument.
        stage_dim: channels of what the stages quantize, default `dim`; where it differs, x is projected once, in
            front of the first stage. `code_dim` has each stage project instead.
        shared: one codebook for all stages.
        options: those of ResidualQuantizer go there, the others (codebook_size, code_dim, decay, ...) to each
            stage.
    """
    check_at_least("num_quantizers", num_quantizers, 1)
    own, stage_options = _split_options(ResidualQuantizer, options)
    width = dim if stage_dim is None else stage_dim
    stages = _repeat(lambda: create(quantizer, dim=width, **stage_options), num_quantizers, shared)
    return ResidualQuantizer(dim, stages, channel_dim=channel_dim, **own)


def grouped(
    create: Create,
    dim: int,
    *,
    quantizer: str | Create = "vq",
    num_groups: int = 2,
    shared: bool = False,
    channel_dim: int = -1,
    **options: Any,
) -> GroupedQuantizer:
    """A GroupedQuantizer of `num_groups` quantizers of one kind, each with an equal share of the channels.

    Args: as of `residual`; all options go to each group.

    Raises: ValueError where the groups do not divide the channels.
    """
    check_at_least("dim", dim, 1)
    check_at_least("num_groups", num_groups, 1)
    if dim % num_groups:
        raise ValueError(f"dim is {dim}, expected a multiple of num_groups, {num_groups}")
    groups = _repeat(lambda: create(quantizer, dim=dim // num_groups, **options), num_groups, shared)
    return GroupedQuantizer(dim, groups, channel_dim=channel_dim)


def multiscale(
    create: Create,
    dim: int,
    *,
    quantizer: str | Create = "vq",
    scales: Sequence[float] = (0.25, 0.5, 1.0),
    axes: int = 2,
    shared: bool = True,
    channel_dim: int = -1,
    **options: Any,
) -> MultiScaleQuantizer:
    """A MultiScaleQuantizer of quantizers of one kind, by default one for all scales, as in VAR.

    Args: as of `residual`; scales, axes and others of MultiScaleQuantizer go there, the rest to each quantizer.
    """
    own, part_options = _split_options(MultiScaleQuantizer, options)
    parts = _repeat(lambda: create(quantizer, dim=dim, **part_options), len(scales), shared)
    return MultiScaleQuantizer(dim, parts, scales=scales, axes=axes, channel_dim=channel_dim, **own)


def residual_fsq(
    dim: int,
    codebook_size: int | None = None,
    levels: Sequence[int] | None = None,
    *,
    num_quantizers: int = 2,
    channel_dim: int = -1,
    **options: Any,
) -> ResidualQuantizer:
    """Residual FSQ whose grids become finer: each stage's spans the cell of the one before.

    FSQ bounds what it gets, so that stages of it, one after another, would take the tanh of ever smaller residuals
    and round it on the same coarse grid. Here z is bounded once; stage i divides by s_i, where s_0 = 1 and
    s_{i+1} = s_i / (2⌊L/2⌋), half a step of the grid before, and rounds without a bound. After n stages of odd
    level counts |tanh(z) − value| ≤ s_n. With `learn_scales=True` the scales adapt (Zhu et al.: Robust Residual
    Finite Scalar Quantization, 2025, arXiv 2508.15860).

    Args:
        dim: channels of x; where it differs from len(levels), x is projected.
        codebook_size, levels: of each stage, one of the two, as for "fsq".
        options: of ResidualQuantizer.
    """
    check_at_least("num_quantizers", num_quantizers, 1)
    chosen = tuple(_levels("residual_fsq", codebook_size, levels))
    stages = [FSQ(len(chosen), chosen, bound="clamp") for _ in range(num_quantizers)]
    scales = [[(2 * (level // 2)) ** -float(place) for level in chosen] for place in range(num_quantizers)]
    return ResidualQuantizer(
        dim, stages, channel_dim=channel_dim, **{"entry": nn.Tanh(), "scales": scales, **options}
    )


def fsq(dim: int, codebook_size: int | None = None, levels: Sequence[int] | None = None, **options: Any) -> FSQ:
    """FSQ from levels, or from a codebook size by `levels_for`, so that one line of configuration fits all."""
    return FSQ(dim, _levels("fsq", codebook_size, levels), **options)


def fsp(dim: int, codebook_size: int | None = None, levels: Sequence[int] | None = None, **options: Any) -> FSP:
    """FSP from levels, or from a codebook size by `levels_for`."""
    return FSP(dim, _levels("fsp", codebook_size, levels), **options)


def vqbridge(
    dim: int, codebook_size: int, code_dim: int | None = None, learned_basis: bool = True, **options: Any
) -> SimVQ:
    """SimVQ with a VQBridge of its size as the map; options that the bridge does not take go to SimVQ."""
    own, others = _split_options(VQBridge, options)
    bridge = VQBridge(codebook_size, dim if code_dim is None else code_dim, **own)
    return SimVQ(dim, codebook_size, code_dim=code_dim, transform=bridge, learned_basis=learned_basis, **others)


def _levels(name: str, codebook_size: int | None, levels: Sequence[int] | None) -> Sequence[int]:
    if codebook_size is not None and levels is None:
        return levels_for(codebook_size)
    if levels is not None and codebook_size is None:
        return levels
    raise ValueError(f"{name} takes either levels or codebook_size, and one of them is needed")


def _repeat(make: Callable[[], Quantizer], count: int, shared: bool) -> list[Quantizer]:
    return [make()] * count if shared else [make() for _ in range(count)]


def _split_options(module: type[nn.Module], options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that a module's constructor names, and the others."""
    names = inspect.signature(module).parameters
    return (
        {name: value for name, value in options.items() if name in names},
        {name: value for name, value in options.items() if name not in names},
    )
