"""Quantizers by name."""

import contextlib
import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from quantizers.core.arguments.checks import plain, shown
from quantizers.core.arguments.forwarding import builder_name, forwarding_of, options_of
from quantizers.core.arguments.hints import did_you_mean
from quantizers.core.arguments.listing import Options
from quantizers.core.arguments.options import UnknownOptionError, bind, checked, signature_of
from quantizers.core.base import Quantizer

Builder = Callable[..., Quantizer]
B = TypeVar("B", bound=Builder)

Resolver = Callable[[str], tuple[str | Builder, Mapping[str, object]]]
"""Answers the rest of a name with a method and options of it."""

_BUILDERS: dict[str, Builder] = {}
_SCHEMES: dict[str, Resolver] = {}

ALIASES: dict[str, str] = {
    **dict.fromkeys(("vqvae", "vq_vae", "standard"), "vq"),
    **dict.fromkeys(("rvq", "rq", "residual_vq"), "residual"),
    **dict.fromkeys(("pq", "product", "product_quantization", "gvq", "grvq"), "grouped"),
    **dict.fromkeys(("multi_scale", "msvq", "snac"), "multiscale"),
    **dict.fromkeys(("rfsq", "residualfsq"), "residual_fsq"),
    **dict.fromkeys(("lookup_free", "magvit2"), "lfq"),
    **dict.fromkeys(("binary_spherical",), "bsq"),
    **dict.fromkeys(("free_transformer",), "bernoulli"),
    **dict.fromkeys(("gq", "gaussian_vae"), "gaussian_quant"),
    **dict.fromkeys(("gumbel_softmax", "gumbel_vq", "dvae"), "gumbel"),
    **dict.fromkeys(("best_rq", "bestrq"), "random_projection"),
    **dict.fromkeys(("multi_best_rq", "multi_codebook"), "parallel"),
    **dict.fromkeys(("fvq",), "vqbridge"),
    **dict.fromkeys(("identity", "continuous"), "none"),
    **dict.fromkeys(("no_quantization", "quantizer_dropout"), "bypass"),
    **dict.fromkeys(("leech", "slq", "spherical_leech"), "lattice"),
    **dict.fromkeys(("optimized_product", "optimized_product_quantization"), "opq"),
    **dict.fromkeys(("itq", "iterative_quantization"), "rotated"),
    **dict.fromkeys(("annealed", "annealing", "hardness"), "interpolated"),
}
"""Other names for methods, which `create` answers with the registered one."""


class _NotGiven:
    def __repr__(self) -> str:
        return "not given"


NOT_GIVEN = _NotGiven()


def available() -> tuple[str, ...]:
    """The names that `create` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def register(name: str, builder: Builder | None = None, /, **preset: object) -> Callable[[B], B]:
    """Make `create(name, ...)` call `builder` with the options in `preset` and those that `create` is given.

    A class registers itself as a decorator; anything else that can be called is passed in:

        @register("my_vq")
        class MyQuantizer(RowQuantizer): ...

        register("my_rotation_vq", VectorQuantizer, gradient="rotation")

    A class or function that is defined again, in a notebook cell that runs twice or by `importlib.reload`,
    replaces its first definition.

    Args:
        name: any string that is not taken.
        builder: a Quantizer class, a partial, or a function that returns a quantizer.
        preset: options of the builder that have other defaults under this name.

    Returns: a decorator that registers what it decorates and returns it unchanged.

    Raises: ValueError for a name that is taken; TypeError for a name that is not a string or a builder that cannot
        be called.
    """

    def decorate(decorated: B) -> B:
        _add(name, decorated, preset)
        return decorated

    if builder is not None:
        _add(name, builder, preset)
    return decorate


def _add(name: str, builder: Builder, preset: dict[str, object]) -> None:
    if not isinstance(name, str) or not callable(builder):
        raise TypeError(f"register got {name!r} and {builder!r}, expected a name and what to call")
    if name in _BUILDERS and not _is_defined_again(_BUILDERS[name], builder):
        raise ValueError(f"a quantizer named {name!r} is registered already")
    _BUILDERS[name] = partial(builder, **preset) if preset else builder


def register_scheme(scheme: str, resolver: Resolver) -> None:
    """Let `create(f"{scheme}:{name}", ...)` build what `resolver(name)` returns, a method and options of it.

    Options that `create` is given replace those of the resolver.
    """
    _SCHEMES[scheme] = resolver


def _is_defined_again(old: Builder, new: Builder) -> bool:
    """Whether two builders are different objects of one definition: a class, a classmethod or a function."""
    if isinstance(new, partial):
        return False
    old = old.func if isinstance(old, partial) else old
    if getattr(old, "__self__", old) is getattr(new, "__self__", new):
        return False
    return None not in _source(new) and _source(old) == _source(new)


def _source(builder: Builder) -> tuple[object, ...]:
    """Module and name of a class or function; of a classmethod those of its class, and its own name."""
    owner = getattr(builder, "__self__", builder)
    module, qualified = (getattr(owner, name, None) for name in ("__module__", "__qualname__"))
    return module, qualified, getattr(builder, "__name__", None)


@checked
def create(
    quantizer: str | Builder, /, dim: Any = NOT_GIVEN, codebook_size: Any = NOT_GIVEN, **options: object
) -> Quantizer:
    """Build a quantizer from its name, its class, or a partial of it.

        create("simvq", 256, 8192, channel_dim=1)

    `quantizers.options(name)` lists the options of a name with their defaults, and `available()` the names.

    Args:
        quantizer: one of `available()`; "preset:" and one of `quantizers.presets.available()`, whose options are
            then the defaults; or what to call.
        dim: the number of channels of x.
        codebook_size: K, the number of codes.
        options: all other arguments of the constructor, by name. Every quantizer takes channel_dim.

    Raises: ValueError for an unknown name, with the names near it, and for an option with an unsuitable value;
        TypeError if `quantizer` is neither a name nor callable, for an option that does not exist, with the
        options near it, for a missing option, and if the result is no Quantizer.
    """
    builder = _builder(quantizer)
    label = builder_name(builder) if callable(quantizer) else str(plain(quantizer))
    sizes = {"dim": dim, "codebook_size": codebook_size}
    options = {**{name: size for name, size in sizes.items() if size is not NOT_GIVEN}, **options}
    bind(label, signature_of(builder), **options)
    try:
        made = builder(**options)
    except UnknownOptionError as error:
        if error.option not in options:
            raise
        raise error.taken_by(label, options_of(builder), instead_of=builder_name(builder)) from None
    if not isinstance(made, Quantizer):
        raise TypeError(f"{label} made {type(made).__name__}, expected a Quantizer")
    return made


def options(quantizer: str | Builder, /) -> Options:
    """The options of a quantizer with their defaults, for reading or as a mapping.

        >>> import quantizers
        >>> quantizers.options("grouped")
        options of 'grouped':
          dim          required
          quantizer    'vq'
          num_groups   2
          shared       False
          channel_dim  -1
          dropout      0.0
          dropout_by   'sample'
        Other options go to each group; options('vq') lists them for quantizer='vq'.
        >>> quantizers.options("ema_vq")["decay"]
        0.99

    Args: quantizer: as for `create`.

    Returns: a mapping from each name to its default, `REQUIRED` where it has none. Options that a composition
        forwards to the class that it builds are included.

    Raises: ValueError for an unknown name; TypeError if `quantizer` is neither a name nor callable.
    """
    builder = _builder(quantizer)
    name = builder_name(builder) if callable(quantizer) else str(plain(quantizer))
    return Options(name, options_of(builder), _others(builder))


def _others(builder: Builder) -> str:
    forwarding = forwarding_of(builder)
    if forwarding.others:
        return forwarding.others
    kinds = [parameter.kind for parameter in signature_of(builder).parameters.values()]
    takes_more = inspect.Parameter.VAR_KEYWORD in kinds and not forwarding.constructors
    return f"what {builder_name(builder)} builds" if takes_more else ""


def _builder(quantizer: object) -> Builder:
    name = plain(quantizer)
    if isinstance(name, str):
        scheme, colon, rest = name.partition(":")
        if colon and scheme in _SCHEMES and name not in _BUILDERS:
            method, options = _SCHEMES[scheme](rest)
            return partial(_builder(method), **options)
        if name not in _BUILDERS:
            near = [*_under_schemes(name), *_near(name.lower())]
            raise ValueError(
                f"no quantizer is named {name!r}; {did_you_mean(near)}there are {', '.join(available())}"
            )
        return _BUILDERS[name]
    if not callable(quantizer):
        raise TypeError(
            f"quantizer is {shown(quantizer)}, expected a class, a function, or one of {', '.join(available())}"
        )
    return quantizer


def _under_schemes(name: str) -> list[str]:
    """The name under each scheme whose resolver knows it."""
    found = []
    for scheme, resolver in _SCHEMES.items():
        with contextlib.suppress(ValueError):
            resolver(name)
            found.append(f"{scheme}:{name}")
    return found


def _near(name: str) -> list[str]:
    """Registered names that are near a word, an alias or the name of a class among them."""
    presets_first = sorted(_BUILDERS.items(), key=lambda item: not isinstance(item[1], partial))
    classes = {builder_name(builder).lower(): key for key, builder in presets_first}
    words = {**classes, **{alias: key for alias, key in ALIASES.items() if key in _BUILDERS}}
    exact = [words[name]] if name in words else []
    return list(dict.fromkeys([*exact, *difflib.get_close_matches(name, _BUILDERS, n=3, cutoff=0.4)]))[:3]


def parameters(quantizer: str | Builder) -> frozenset[str]:
    """The options that a name, class or partial leaves open, without those that a builder forwards."""
    try:
        builder = _builder(quantizer)
    except ValueError:
        return frozenset()
    settled = builder.keywords.keys() if isinstance(builder, partial) else frozenset()
    return frozenset(signature_of(builder).parameters) - settled
