"""Quantizers by name."""

import difflib
from collections.abc import Callable
from functools import partial

from quantizers import builders
from quantizers.base import Quantizer
from quantizers.bernoulli import BernoulliQuantizer
from quantizers.bsq import BSQ
from quantizers.checks import Count, Size, plain, shown
from quantizers.diveq import DiVeQ
from quantizers.ema import EMAVectorQuantizer
from quantizers.gumbel import GumbelQuantizer
from quantizers.ibq import IBQ
from quantizers.identity import Identity
from quantizers.lfq import LFQ
from quantizers.multihead import MultiHeadVectorQuantizer
from quantizers.nsvq import NSVQ
from quantizers.options import bind, checked, signature_of
from quantizers.optvq import OptVQ
from quantizers.qinco import QINCo
from quantizers.random_projection import RandomProjectionQuantizer
from quantizers.simvq import SimVQ
from quantizers.vector import VectorQuantizer

Builder = Callable[..., Quantizer]


def available() -> tuple[str, ...]:
    """The names that `create` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def register(name: str, builder: Builder) -> None:
    """Make `create(name, ...)` call `builder`: a Quantizer class, a partial, or a function that returns one.

    Raises: ValueError for a name that is taken; TypeError for a name that is no string or a builder that cannot be
        called.
    """
    if not isinstance(name, str) or not callable(builder):
        raise TypeError(f"register got {name!r} and {builder!r}, expected a name and what to call")
    if name in _BUILDERS:
        raise ValueError(f"a quantizer named {name!r} is registered already")
    _BUILDERS[name] = builder


@checked
def create(quantizer: str | Builder, /, **options: object) -> Quantizer:
    """Build a quantizer from its name, its class, or a partial of it.

        create("simvq", dim=256, codebook_size=8192, channel_dim=1)

    Args:
        quantizer: one of `available()`, or what to call.
        options: its constructor's arguments. Every name takes dim, codebook_size and channel_dim.

    Raises: ValueError for an unknown name, with those that are near it, and for an option's value that does not
        fit; TypeError for what is no name, an option that does not exist, with those that do, one that is missing,
        and where the result is no Quantizer.
    """
    builder = _builder(quantizer)
    label = str(plain(quantizer)) if not callable(quantizer) else _name(builder)
    bind(label, signature_of(builder), **options)
    made = builder(**options)
    if not isinstance(made, Quantizer):
        raise TypeError(f"{label} made {type(made).__name__}, expected a Quantizer")
    return made


def _name(builder: Builder) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__name__", type(function).__name__)


def _builder(quantizer: object) -> Builder:
    name = plain(quantizer)
    if isinstance(name, str):
        if name not in _BUILDERS:
            near = difflib.get_close_matches(name.lower(), _BUILDERS, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(f"no quantizer is named {name!r}; {hint}there are {', '.join(available())}")
        return _BUILDERS[name]
    if not callable(quantizer):
        raise TypeError(
            f"quantizer is {shown(quantizer)}, expected a class, a function, or one of {', '.join(available())}"
        )
    return quantizer


@checked
def _identity(
    dim: Size, codebook_size: Count | None = None, *, code_dim: Size | None = None, channel_dim: int = -1
) -> Identity:
    """Identity; it has no codes, and a codebook size that stands in the configuration is left aside."""
    return Identity(dim, code_dim=code_dim, channel_dim=channel_dim)


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
    "residual": partial(builders.residual, create),
    "residual_fsq": builders.residual_fsq,
    "grouped": partial(builders.grouped, create),
    "multiscale": partial(builders.multiscale, create),
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


def parameters(quantizer: str | Builder) -> frozenset[str]:
    """The options that a name, class or partial leaves open; those that a builder passes on are not seen."""
    builder = quantizer if callable(quantizer) else _BUILDERS.get(quantizer)
    if builder is None:
        return frozenset()
    settled = builder.keywords.keys() if isinstance(builder, partial) else frozenset()
    return frozenset(signature_of(builder).parameters) - settled
