"""A quantizer that fits a place in a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from quantizers.adapters.bases.adapter import Place
from quantizers.composite.builders import grouped, residual
from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.registry import Builder, create, parameters
from quantizers.scalar.fsp import FSP

_PASSED_ON: Mapping[str | Builder, tuple[Builder, ...]] = {"fsp": (FSP,)}
"""What a builder passes its options on to."""


def build(place: Place, quantizer: str | Builder | Quantizer, options: Mapping[str, Any], keep: bool) -> Quantizer:
    """A quantizer for a place: one that is given, if it fits, or one built from its name and options.

    Raises: ValueError for one that does not fit.
    """
    if isinstance(quantizer, Quantizer):
        if options:
            raise ValueError(f"options {sorted(options)} are given with a quantizer that is built; set them there")
        return check_fits(place, quantizer)
    if isinstance(quantizer, nn.Module) or not (isinstance(quantizer, str) or callable(quantizer)):
        raise ValueError(f"quantizer is {type(quantizer).__name__}, expected a name, a class or a Quantizer")
    if place.groups is not None:
        return check_fits(place, _grouped(place, quantizer, options, keep))
    found = {**place.options, **({"logits": "distance", **place.kept} if keep else {})}
    if "hard" in parameters(quantizer):  # which Gumbel quantizers have
        found |= place.sampling
    if place.stages is None:
        name, own = quantizer, _taken(found, quantizer, *_PASSED_ON.get(quantizer, ()))
    else:
        name, own = _staged(quantizer, found, options)
        own["num_quantizers"] = place.stages
    if options.keys() & {"levels", "codebook_size"}:
        own.pop("levels", None)
    elif "levels" not in own:
        if not isinstance(place.codebook_size, int) and name != "residual":
            raise ValueError(
                f"quantizer is {quantizer!r}, whose stages are of one size, and the model's have codebook_size="
                f"{place.codebook_size}: give codebook_size= for all of them, or 'residual'"
            )
        own["codebook_size"] = place.codebook_size
    return check_fits(place, create(name, dim=place.dim, channel_dim=place.channel_dim, **{**own, **options}))


def _grouped(place: Place, quantizer: str | Builder, options: Mapping[str, Any], keep: bool) -> Quantizer:
    """Groups of channels, each with what a place that wide would get; those of "grouped" are its own option."""
    groups = place.groups or 1
    width = place.dim if place.group_dim is None else groups * place.group_dim
    projects = width != place.dim
    if quantizer == "multihead":  # the same groups, in one call
        axis = -1 if projects else place.channel_dim
        inside = place._replace(dim=width, channel_dim=axis, groups=None)
        heads = build(inside, quantizer, {"num_heads": groups, **options}, keep)
        return GroupedQuantizer(place.dim, [heads], channel_dim=place.channel_dim) if projects else heads
    inner = {}
    if quantizer != "grouped":
        inner = {name: value for name, value in options.items() if name == "quantizer"}
        options = {**options, "quantizer": quantizer}

    def create_group(group: str | Builder, dim: int, **own: Any) -> Quantizer:
        return build(place._replace(dim=dim, channel_dim=-1, groups=None), group, {**own, **inner}, keep)

    own = {"num_groups": groups, "shared": place.one_codebook, **options}
    made = grouped(create_group, width, channel_dim=place.channel_dim, **own)
    return GroupedQuantizer(place.dim, made.components, channel_dim=place.channel_dim) if projects else made


def _staged(
    quantizer: str | Builder, found: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[str | Builder, dict[str, Any]]:
    """What builds stages of a quantizer, and the options that follow from the place."""
    stage = options.get("quantizer", "vq") if quantizer == "residual" else quantizer
    if stage not in ("lfq", "bsq"):  # codes of a fixed size, which a model scales by stage; others find their own
        found = {name: value for name, value in found.items() if name != "scales"}
    if quantizer == "fsq":
        quantizer = "residual_fsq"  # bounded codes do not follow residuals that shrink
    if quantizer == "qinco":
        return quantizer, _taken(found, quantizer)
    if quantizer == "residual_fsq":
        return quantizer, _taken(found, quantizer, ResidualQuantizer)
    return "residual", {"quantizer": stage, **_taken(found, residual, ResidualQuantizer, stage)}


def _taken(found: Mapping[str, Any], *quantizers: str | Builder) -> dict[str, Any]:
    """Those of the place's options that quantizers have arguments for."""
    names = frozenset().union(*map(parameters, quantizers))
    return {name: value for name, value in found.items() if name in names}


def check_fits(place: Place, quantizer: Quantizer) -> Quantizer:
    """`quantizer`, if it takes what the model hands over; else a sentence that says what does not fit."""
    if quantizer.dim != place.dim:
        raise ValueError(
            f"quantizer has dim={quantizer.dim}, and the model hands over {place.dim} channels: expected "
            f"dim={place.dim}; where the codes have other channels, code_dim projects"
        )
    if quantizer.channel_dim != place.channel_dim:
        raise ValueError(
            f"quantizer has channel_dim={quantizer.channel_dim}, expected channel_dim={place.channel_dim}, where "
            "this model has its channels"
        )
    if not quantizer.per_vector:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__}, whose indices are of whole maps; the model expects an "
            "index for each vector"
        )
    if place.stages is not None and not quantizer.composed:
        raise ValueError(
            f"quantizer is {type(quantizer).__name__}, which has one code a vector; this model expects stages: "
            "give a name, or a ResidualQuantizer"
        )
    return quantizer
