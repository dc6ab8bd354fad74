"""Quantizers made of parts, from one line of configuration."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import nn

from quantizers.codebooks.simvq import SimVQ
from quantizers.codebooks.vqbridge import VQBridge
from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.arguments.checks import Level, Size, elements
from quantizers.core.arguments.options import UnknownOptionError, checked, option_names, passed_on
from quantizers.core.base import Quantizer
from quantizers.core.registry import create, register
from quantizers.scalar.fsp import FSP
from quantizers.scalar.fsq import FSQ, levels_for

Create = Callable[..., Quantizer]


@checked
def residual(
    create: Create,
    /,
    dim: Size,
    *,
    quantizer: str | Create = "vq",
    num_quantizers: Size | None = None,
    stage_dim: Size | None = None,
    shared: bool = False,
    channel_dim: int = -1,
    **options: Any,
) -> ResidualQuantizer:
    """A ResidualQuantizer of stages of one kind.

    Args:
        create: `quantizers.create`. quantizer: its first argument.
        num_quantizers: how many stages; default one for each size in `codebook_size`, 4 where that is one number.
        stage_dim: channels of what the stages quantize, default `dim`; where it differs, x is projected once, in
            front of the first stage. `code_dim` has each stage project instead.
        shared: one codebook for all stages.
        options: those of ResidualQuantizer go there, the others (codebook_size, code_dim, decay, ...) to each
            stage. `codebook_size` may be a list: one size for each stage.

    Raises: ValueError for sizes that are not one for each stage, and for several where the stages share one
    codebook.
    """
    own, stage_options = _split_options(ResidualQuantizer, options)
    stage_options["dim"] = dim if stage_dim is None else stage_dim
    with _passed_on(residual, ResidualQuantizer):
        sizes = elements(stage_options.get("codebook_size"))
        if sizes is not None:
            del stage_options["codebook_size"]
            sizes = _sizes_by_stage(sizes, num_quantizers, shared)
            stages = [create(quantizer, codebook_size=size, **stage_options) for size in sizes]
        else:
            stages = _repeat(lambda: create(quantizer, **stage_options), num_quantizers or 4, shared)
    return ResidualQuantizer(dim, stages, channel_dim=channel_dim, **own)


def _sizes_by_stage(sizes: list[Any], num_quantizers: int | None, shared: bool) -> list[Any]:
    """`sizes`, if they are one for each stage."""
    if shared:
        raise ValueError(
            f"codebook_size is {sizes}, expected one number where shared=True: the stages have one codebook"
        )
    if not sizes:
        raise ValueError("codebook_size is empty, expected one size for each stage")
    if num_quantizers not in (None, len(sizes)):
        raise ValueError(
            f"codebook_size has {len(sizes)} sizes for num_quantizers={num_quantizers} stages, expected one for "
            "each"
        )
    return sizes


@checked
def grouped(
    create: Create,
    /,
    dim: Size,
    *,
    quantizer: str | Create = "vq",
    num_groups: Size = 2,
    shared: bool = False,
    channel_dim: int = -1,
    **options: Any,
) -> GroupedQuantizer:
    """A GroupedQuantizer of `num_groups` quantizers of one kind, each with an equal share of the channels.

    Args: as of `residual`; all options go to each group.

    Raises: ValueError where the groups do not divide the channels.
    """
    if dim % num_groups:
        raise ValueError(f"dim is {dim}, expected a multiple of num_groups, {num_groups}")
    with _passed_on(grouped):
        groups = _repeat(lambda: create(quantizer, dim=dim // num_groups, **options), num_groups, shared)
    return GroupedQuantizer(dim, groups, channel_dim=channel_dim)


@checked
def multiscale(
    create: Create,
    /,
    dim: Size,
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
    with _passed_on(multiscale, MultiScaleQuantizer):
        parts = _repeat(lambda: create(quantizer, dim=dim, **part_options), len(scales), shared)
    return MultiScaleQuantizer(dim, parts, scales=scales, axes=axes, channel_dim=channel_dim, **own)


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
    _check_known(options, residual_fsq, ResidualQuantizer)
    chosen = tuple(_levels("residual_fsq", codebook_size, levels))
    stages = [FSQ(len(chosen), chosen, bound="clamp") for _ in range(num_quantizers)]
    if "scales" not in options:
        falls = [_fall(level, num_quantizers) for level in chosen]
        options = {**options, "scales": [[fall**-place for fall in falls] for place in range(num_quantizers)]}
    return ResidualQuantizer(dim, stages, channel_dim=channel_dim, **{"entry": nn.Tanh(), **options})


# A change of z's last bit moves tanh(z) by up to 0.45 · 2⁻²³, and each of the two tanh rounds by up to 2⁻²⁴:
# together below 2⁻²²·⁴. A boundary of a channel's code lies within that of a uniform tanh(z) with probability
# 2⁻²²·⁴ / step; summed over this stage and those before, whose steps are larger by f each, 2⁻⁸·⁴ · f / (f − 1) <
# 1.5 %.
FINEST_STEP = 2.0**-14
LEAST_FALL = 1.25


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


@checked
def fsq(dim: Size, codebook_size: int | None = None, levels: Sequence[Level] | None = None, **options: Any) -> FSQ:
    """FSQ from levels, or from a codebook size by `levels_for`, so that one line of configuration fits all."""
    _check_known(options, fsq, FSQ)
    return FSQ(dim, _levels("fsq", codebook_size, levels), **options)


@checked
def fsp(dim: Size, codebook_size: int | None = None, levels: Sequence[Level] | None = None, **options: Any) -> FSP:
    """FSP from levels, or from a codebook size by `levels_for`."""
    _check_known(options, fsp, FSP)
    return FSP(dim, _levels("fsp", codebook_size, levels), **options)


@checked
def vqbridge(
    dim: Size, codebook_size: Size, code_dim: Size | None = None, learned_basis: bool = True, **options: Any
) -> SimVQ:
    """SimVQ with a VQBridge of its size as the map; options that the bridge does not take go to SimVQ."""
    _check_known(options, vqbridge, VQBridge, SimVQ, without="transform")
    own, others = _split_options(VQBridge, options)
    bridge = VQBridge(codebook_size, dim if code_dim is None else code_dim, **own)
    return SimVQ(dim, codebook_size, code_dim=code_dim, transform=bridge, learned_basis=learned_basis, **others)


def _levels(name: str, codebook_size: int | None, levels: Sequence[int] | None) -> Sequence[int]:
    if codebook_size is not None and levels is None:
        return levels_for(codebook_size)
    if levels is not None and codebook_size is None:
        return levels
    raise ValueError(f"{name} takes either levels or codebook_size, and one of them is needed")


def _options_of(builder: Callable[..., object], *modules: type[nn.Module]) -> list[str]:
    """What a builder takes itself, and those of its options that go to the constructors of modules."""
    return list(dict.fromkeys([*option_names(builder), *option_names(*modules, keyword_only=True)]))


def _passed_on(builder: Callable[..., object], *modules: type[nn.Module]) -> AbstractContextManager[None]:
    """Where a builder makes its parts: an option that does not exist is none of its own either."""
    return passed_on(builder.__name__, _options_of(builder, *modules))


def _check_known(
    options: Mapping[str, object], builder: Callable[..., object], *modules: type[nn.Module], without: str = ""
) -> None:
    """Raises: UnknownOptionError for one that no module takes, or that the builder sets itself."""
    names = [name for name in _options_of(builder, *modules) if name != without]
    for name in options:
        if name not in names:
            raise UnknownOptionError(name, {builder.__name__: names})


def _repeat(make: Callable[[], Quantizer], count: int, shared: bool) -> list[Quantizer]:
    return [make()] * count if shared else [make() for _ in range(count)]


def _split_options(module: type[nn.Module], options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that a module's constructor takes by name alone, and the others."""
    names = option_names(module, keyword_only=True)
    return (
        {name: value for name, value in options.items() if name in names},
        {name: value for name, value in options.items() if name not in names},
    )


register("fsq", fsq)
register("fsp", fsp)
register("vqbridge", vqbridge)
register("residual", partial(residual, create))
register("residual_fsq", residual_fsq)
register("grouped", partial(grouped, create))
register("multiscale", partial(multiscale, create))
