"""Quantizers by name."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial

from quantizers import builders
from quantizers.base import Quantizer
from quantizers.bernoulli import BernoulliQuantizer
from quantizers.bsq import BSQ
from quantizers.diveq import DiVeQ
from quantizers.ema import EMAVectorQuantizer
from quantizers.gumbel import GumbelQuantizer
from quantizers.ibq import IBQ
from quantizers.identity import Identity
from quantizers.lfq import LFQ
from quantizers.multihead import MultiHeadVectorQuantizer
from quantizers.nsvq import NSVQ
from quantizers.optvq import OptVQ
from quantizers.qinco import QINCo
from quantizers.random_projection import RandomProjectionQuantizer
from quantizers.simvq import SimVQ
from quantizers.vector import VectorQuantizer

Builder = Callable[..., Quantizer]


def _identity(dim: int, codebook_size: int | None = None, **options: object) -> Identity:
    """Identity; it has no codes, and a codebook size that stands in the configuration is left aside."""
    return Identity(dim, **options)  # type: ignore[arg-type]


_BUILDERS: dict[str, Builder] = {
    "vq": VectorQuantizer,
    "ema_vq": EMAVectorQuantizer,
    "simvq": SimVQ,
    "affine_vq": partial(SimVQ, transform="affine", learned_basis=True),
    "rotation_vq": partial(VectorQuantizer, gradient="rotation"),
    "fsq": builders.fsq,
    "fsp": builders.fsp,
    "lfq": LFQ,
    "bsq": BSQ,
    "bernoulli": BernoulliQuantizer,
    "gumbel": GumbelQuantizer,
    "residual": lambda **options: builders.residual(create, **options),
    "residual_fsq": builders.residual_fsq,
    "grouped": lambda **options: builders.grouped(create, **options),
    "multiscale": lambda **options: builders.multiscale(create, **options),
    "multihead": MultiHeadVectorQuantizer,
    "ibq": IBQ,
    "optvq": OptVQ,
    "diveq": DiVeQ,
    "nsvq": NSVQ,
    "qinco": QINCo,
    "random_projection": RandomProjectionQuantizer,
    "vqbridge": builders.vqbridge,
    "none": _identity,
}


def available() -> tuple[str, ...]:
    """The names that `create` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def register(name: str, builder: Builder) -> None:
    """Make `create(name, ...)` call `builder`: a Quantizer class, a partial, or a function that returns one.

    Raises: ValueError for a name that is taken.
    """
    if name in _BUILDERS:
        raise ValueError(f"a quantizer named {name!r} is registered already")
    _BUILDERS[name] = builder


def create(quantizer: str | Builder, /, **options: object) -> Quantizer:
    """Build a quantizer from its name, its class, or a partial of it.

        create("simvq", dim=256, codebook_size=8192, channel_dim=1)

    Args:
        quantizer: one of `available()`, or what to call.
        options: its constructor's arguments. Every name takes dim, codebook_size and channel_dim.

    Raises: ValueError for an unknown name, with those that are near it.
    """
    if callable(quantizer):
        return quantizer(**options)
    if quantizer not in _BUILDERS:
        near = difflib.get_close_matches(quantizer.lower(), _BUILDERS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"no quantizer is named {quantizer!r}; {hint}there are {', '.join(available())}")
    return _BUILDERS[quantizer](**options)


def parameters(quantizer: str | Builder) -> frozenset[str]:
    """The options that a name, class or partial leaves open; those that a builder passes on are not seen."""
    builder = quantizer if callable(quantizer) else _BUILDERS.get(quantizer)
    if builder is None:
        return frozenset()
    settled = builder.keywords.keys() if isinstance(builder, partial) else frozenset()
    return frozenset(inspect.signature(builder).parameters) - settled
