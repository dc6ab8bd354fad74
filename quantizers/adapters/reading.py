"""Read the sizes that a model needs from its quantizer."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.core.base import Quantizer
from quantizers.core.registry import Builder


def read_spec(
    path: str,
    original: nn.Module,
    contract: type[Adapter],
    quantizer: str | Builder | Quantizer,
    options: Mapping[str, Any],
) -> tuple[QuantizerSpec, dict[str, Any]]:
    """Read what a model needs from its quantizer: off that quantizer, off a new one, or off the options.

    Returns: the spec, and the options without `dim` and `channel_dim`.

    Raises: ValueError for a quantizer that cannot be read if the options do not give its sizes, and for options
        that differ from what was read.
    """
    others = {name: value for name, value in options.items() if name not in ("dim", "channel_dim")}
    try:
        spec = contract.read_spec(original)
    except (AttributeError, TypeError) as error:
        if isinstance(quantizer, Quantizer):  # which has its own sizes
            return _spec_of(quantizer, contract), others
        return _spec_from_options(path, original, contract, options, error), others
    for name in ("dim", "channel_dim"):
        expected = getattr(spec, name)
        if options.get(name, expected) != expected:
            raise ValueError(
                f"{name} is {options[name]}, but {type(original).__name__} at {path!r} has {expected}; leave "
                f"{name} out"
            )
    return spec, others


def _spec_of(quantizer: Quantizer, contract: type[Adapter]) -> QuantizerSpec:
    stages = quantizer.num_codebooks if contract.has_stages else None
    scales = (1.0,) * quantizer.num_codebooks if contract.has_scales else None  # their number is all that matters
    return QuantizerSpec(quantizer.dim, quantizer.codebook_size, quantizer.channel_dim, stages, scales=scales)


def _spec_from_options(
    path: str, original: nn.Module, contract: type[Adapter], options: Mapping[str, Any], error: Exception
) -> QuantizerSpec:
    """The sizes that the caller gave, since `error` was raised when they were read from the original."""
    needed = ["dim", "codebook_size", *["num_quantizers"] * contract.has_stages, *["scales"] * contract.has_scales]
    if not options.keys() >= set(needed):
        raise ValueError(
            f"at {path!r} is {type(original).__name__}, whose sizes contract {contract.contract!r} cannot read "
            f"({error}); pass {', '.join(f'{name}=' for name in needed)}"
        ) from error
    stages = options["num_quantizers"] if contract.has_stages else None
    channel_dim = options.get("channel_dim", contract.channel_dim)
    scales = tuple(options["scales"]) if contract.has_scales else None
    dim, size = options["dim"], options["codebook_size"]
    return QuantizerSpec(dim, size, channel_dim, stages, scales=scales, axes=contract.positions)
