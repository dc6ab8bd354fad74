"""Build a quantizer with the sizes that a model needs, or check one that is already built."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.composite.bypass import BypassQuantizer
from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.interpolated import InterpolatedQuantizer
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from quantizers.composite.relaxed import RelaxedQuantizer
from quantizers.composite.repetition import repeated
from quantizers.composite.residual import ResidualQuantizer
from quantizers.composite.var import VARQuantizer
from quantizers.core.arguments.forwarding import forwarding, split_options
from quantizers.core.base import Quantizer
from quantizers.core.registry import Builder, create, parameters
from quantizers.scalar.fsp import FSP
from quantizers.scalar.fsq import FSQ

_BUILT_CLASSES: Mapping[str | Builder, tuple[Builder, ...]] = {"fsp": (FSP,), "fsq": (FSQ,)}
"""The classes to which a builder passes options that its own signature does not list."""

_OF_SCALES: Mapping[str | Builder, Any] = {"var": VARQuantizer, "multiscale": MultiScaleQuantizer}
"""The classes that quantize a map scale by scale."""

_RELAXED: Mapping[str | Builder, type[RelaxedQuantizer]] = {
    "bypass": BypassQuantizer,
    "interpolated": InterpolatedQuantizer,
}
"""Classes that go around the quantizer that a model needs."""


def build(
    spec: QuantizerSpec, quantizer: str | Builder | Quantizer, options: Mapping[str, Any], keep_codebook: bool
) -> Quantizer:
    """The quantizer that was passed, if it fits the spec, or one that is built from a name and options.

    Raises: ValueError for a quantizer that does not fit.
    """
    if isinstance(quantizer, Quantizer):
        if options:
            raise ValueError(
                f"got options {sorted(options)} with a quantizer that is already built; set them when it is built"
            )
        return check_fits(spec, quantizer)
    if isinstance(quantizer, nn.Module) or not (isinstance(quantizer, str) or callable(quantizer)):
        raise ValueError(f"quantizer is {type(quantizer).__name__}, expected a name, a class or a Quantizer")
    if isinstance(quantizer, str) and quantizer.startswith("preset:"):
        raise ValueError(
            f"quantizer is {quantizer!r}, a preset with sizes of its own, but the model's are needed here; "
            "expected the name of its method, with options"
        )
    if quantizer in _RELAXED:
        return check_fits(spec, _relaxed(spec, _RELAXED[quantizer], options, keep_codebook))
    if spec.scales is not None:
        return check_fits(spec, _multiscale(spec, quantizer, options, keep_codebook))
    if spec.num_groups is not None:
        return check_fits(spec, _grouped(spec, quantizer, options, keep_codebook))
    known = _known(spec, keep_codebook)
    if "hard" in parameters(quantizer):  # a Gumbel quantizer
        known |= spec.gumbel_options
    if spec.num_quantizers is None:
        name, own = quantizer, _accepted(known, quantizer, *_BUILT_CLASSES.get(quantizer, ()))
    else:
        name, own = _residual(quantizer, known, options)
        own["num_quantizers"] = spec.num_quantizers
    if options.keys() & {"levels", "lattice", "codebook_size"}:
        own.pop("levels", None)
    elif "levels" not in own:
        if not isinstance(spec.codebook_size, int) and name != "residual":
            raise ValueError(
                f"quantizer is {quantizer!r}, whose stages all have the same size, but the model's have "
                f"codebook_size={spec.codebook_size}; pass codebook_size= for all stages, or use 'residual'"
            )
        own["codebook_size"] = spec.codebook_size
    return check_fits(spec, create(name, dim=spec.dim, channel_dim=spec.channel_dim, **{**own, **options}))


def _relaxed(spec: QuantizerSpec, kind: Any, options: Mapping[str, Any], keep_codebook: bool) -> Quantizer:
    """A relaxed quantizer around the one that the spec and the option `quantizer` describe."""
    own, inner = split_options(kind, options)
    inside = build(spec._replace(channel_dim=-1), inner.pop("quantizer", "vq"), inner, keep_codebook)
    made: Quantizer = kind(inside, **{"channel_dim": spec.channel_dim, **own})
    return made


def _grouped(
    spec: QuantizerSpec, quantizer: str | Builder, options: Mapping[str, Any], keep_codebook: bool
) -> Quantizer:
    """Groups of channels, each with the quantizer that a spec of that width would get.

    The quantizer in the groups of "grouped" is an option of its own.
    """
    groups = spec.num_groups or 1
    width = spec.dim if spec.group_dim is None else groups * spec.group_dim
    projects = width != spec.dim
    if quantizer == "multihead":  # the same groups, in one call
        axis = -1 if projects else spec.channel_dim
        inside = spec._replace(dim=width, channel_dim=axis, num_groups=None)
        heads = build(inside, quantizer, {"num_heads": groups, **options}, keep_codebook)
        return GroupedQuantizer(spec.dim, [heads], channel_dim=spec.channel_dim) if projects else heads
    inner = {}
    if quantizer != "grouped":
        inner = {name: value for name, value in options.items() if name == "quantizer"}
        options = {**options, "quantizer": quantizer}

    kind = options.get("quantizer", "vq")

    def group(dim: int, **own: Any) -> Quantizer:
        return build(
            spec._replace(dim=dim, channel_dim=-1, num_groups=None), kind, {**own, **inner}, keep_codebook
        )

    own = {"num_groups": groups, "shared": spec.shared_codebook, **options, "quantizer": group}
    made = GroupedQuantizer.from_options(width, channel_dim=spec.channel_dim, **own)
    return GroupedQuantizer(spec.dim, made.components, channel_dim=spec.channel_dim) if projects else made


def _multiscale(
    spec: QuantizerSpec, quantizer: str | Builder, options: Mapping[str, Any], keep_codebook: bool
) -> Quantizer:
    """Scales of a map, each with the quantizer that a spec of single vectors would get.

    The quantizer of the scales of "var" and "multiscale" is an option of its own.
    """
    if spec.projects_scales and quantizer not in ("var", VARQuantizer):  # whose scales have one loss together
        return _projecting_scales(spec, quantizer, options, keep_codebook)
    name = quantizer if quantizer in _OF_SCALES else "var"
    kind = options.get("quantizer", "vq") if name == quantizer else quantizer
    known = _known(spec, keep_codebook)
    cls = _OF_SCALES[name]
    own = _accepted(known, cls.from_options, cls, kind, *_BUILT_CLASSES.get(kind, ()))
    if not options.keys() & {"levels", "lattice"}:
        own["codebook_size"] = spec.codebook_size
    own |= {"scales": spec.scales, "axes": spec.axes, **options, "quantizer": kind}
    return create(name, dim=spec.dim, channel_dim=spec.channel_dim, **own)


def _projecting_scales(
    spec: QuantizerSpec, quantizer: str | Builder, options: Mapping[str, Any], keep_codebook: bool
) -> Quantizer:
    """Scales, each with the quantizer and the projections that a spec of single vectors would get."""
    own, inner = split_options(MultiScaleQuantizer, options)
    kind = inner.pop("quantizer", "vq") if quantizer in _OF_SCALES else quantizer
    shared = inner.pop("shared", False)
    inside = spec._replace(channel_dim=-1, scales=None)
    own = {"scales": spec.scales, "axes": spec.axes, **_accepted(spec.options, MultiScaleQuantizer), **own}
    with forwarding(MultiScaleQuantizer.from_options):
        components = repeated(lambda: build(inside, kind, inner, keep_codebook), len(own["scales"]), shared)
    return MultiScaleQuantizer(spec.dim, components, channel_dim=spec.channel_dim, **own)


def _residual(
    quantizer: str | Builder, known: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[str | Builder, dict[str, Any]]:
    """The builder of residual stages of a quantizer, and the options of the spec that it takes."""
    stage = options.get("quantizer", "vq") if quantizer == "residual" else quantizer
    keeps_grid = stage == "fsq" and "symmetric" in known
    if stage not in ("lfq", "bsq") and not keeps_grid:  # the codes of these have a fixed size, and need scales
        known = {name: value for name, value in known.items() if name not in ("scales", "entry")}
    if quantizer == "fsq" and not keeps_grid:
        quantizer = "residual_fsq"  # bounded codes do not follow residuals that shrink
    if quantizer == "qinco":
        return quantizer, _accepted(known, quantizer)
    if quantizer == "residual_fsq":
        return quantizer, _accepted(known, quantizer, ResidualQuantizer)
    built = (stage, *_BUILT_CLASSES.get(stage, ()))
    own = _accepted(known, ResidualQuantizer.from_options, ResidualQuantizer, *built)
    return "residual", {"quantizer": stage, **own}


def _known(spec: QuantizerSpec, keep_codebook: bool) -> dict[str, Any]:
    """The options that the spec has for any quantizer."""
    return {**spec.options, **({"logits": "distance", **spec.keep_codebook_options} if keep_codebook else {})}


def _accepted(known: Mapping[str, Any], *quantizers: str | Builder) -> dict[str, Any]:
    """The options for which one of the quantizers has an argument."""
    names = frozenset().union(*map(parameters, quantizers))
    return {name: value for name, value in known.items() if name in names}


def check_fits(spec: QuantizerSpec, quantizer: Quantizer) -> Quantizer:
    """The quantizer, if it fits the spec. Raises: ValueError that says what does not fit."""
    if quantizer.dim != spec.dim:
        raise ValueError(
            f"quantizer has dim={quantizer.dim}, but the model passes vectors of {spec.dim} channels; expected "
            f"dim={spec.dim}, with code_dim= for codes of another number of channels"
        )
    if quantizer.channel_dim != spec.channel_dim:
        raise ValueError(
            f"quantizer has channel_dim={quantizer.channel_dim}, but this model's channels are on axis "
            f"{spec.channel_dim}; expected channel_dim={spec.channel_dim}"
        )
    if spec.scales is not None:
        _check_scales(spec.scales, quantizer)
    elif not quantizer.per_vector:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__}, whose indices describe whole maps; the model expects an "
            "index for each vector"
        )
    if spec.num_quantizers is not None and not quantizer.composed:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__}, which has one code per vector, but this model expects "
            "stages; pass a name, or a ResidualQuantizer"
        )
    return quantizer


def _check_scales(scales: Sequence[float], quantizer: Quantizer) -> None:
    if not isinstance(quantizer, PyramidQuantizer):
        raise ValueError(
            f"quantizer is {type(quantizer).__name__}, which has no scales, but this model expects {len(scales)}; "
            "pass a name, or a quantizer of scales such as VARQuantizer"
        )
    if len(quantizer.scales) != len(scales):
        raise ValueError(
            f"quantizer has {len(quantizer.scales)} scales, but this model has {len(scales)}; expected the same "
            "number"
        )
