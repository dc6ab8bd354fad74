"""What a configuration may name: classes of quantizers, and the modules and regularizers inside them.

A configuration may come from anywhere, and nothing else is ever looked up or called for one.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from quantizers.codebooks.simvq import Affine, Diagonal, Matrix
from quantizers.codebooks.vqbridge import Block, VQBridge
from quantizers.core.base import Quantizer
from quantizers.training.regularizers import Entropy, Orthogonality, Regularizer, Wasserstein

Arguments = dict[str, Any]


def _attributes(*names: str) -> Callable[[Any], Arguments]:
    """Of a class that keeps its arguments under their names; `bias` is whether there is one."""

    def arguments(part: Any) -> Arguments:
        values = {name: getattr(part, name) for name in names}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        return values

    return arguments


def _bridge(bridge: VQBridge) -> Arguments:
    first = bridge.blocks[0]
    assert isinstance(first, Block)
    return {
        **_attributes("codebook_size", "dim", "patch_size")(bridge),
        "width": bridge.compress.out_features,
        "blocks": len(bridge.blocks),
        "heads": first.heads,
        "gate": bridge.initial_gate,
    }


_CONVOLUTION = _attributes(
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
_TORCH: dict[type[nn.Module], Callable[[Any], Arguments]] = {
    **dict.fromkeys((nn.Identity, nn.LogSigmoid, nn.Sigmoid, nn.Softsign, nn.Tanh, nn.Tanhshrink), _attributes()),
    **dict.fromkeys(
        (nn.Hardsigmoid, nn.Hardswish, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU), _attributes("inplace")
    ),
    **dict.fromkeys((nn.CELU, nn.ELU), _attributes("alpha", "inplace")),
    nn.GELU: _attributes("approximate"),
    nn.Hardtanh: _attributes("min_val", "max_val", "inplace"),
    nn.LeakyReLU: _attributes("negative_slope", "inplace"),
    nn.PReLU: _attributes("num_parameters", "init"),
    nn.Softplus: _attributes("beta", "threshold"),
    nn.Linear: _attributes("in_features", "out_features", "bias"),
    nn.LayerNorm: _attributes("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: _attributes("num_groups", "num_channels", "eps", "affine"),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONVOLUTION),
}
_OWN: dict[type[nn.Module], Callable[[Any], Arguments]] = {
    Affine: lambda affine: {"dim": len(affine.scale)},
    Diagonal: lambda diagonal: {"dim": len(diagonal.weight)},
    Matrix: lambda matrix: {"dim": matrix.in_features},
    VQBridge: _bridge,
}
_REGULARIZERS: dict[type[Regularizer], Callable[[Any], Arguments]] = {
    Entropy: _attributes("weight", "temperature", "diversity"),
    Orthogonality: _attributes("weight"),
    Wasserstein: _attributes("weight", "moves"),
}

MODULES: Mapping[str, type[nn.Module]] = {
    **{f"nn.{part.__name__}": part for part in _TORCH},
    **{part.__name__: part for part in _OWN},
}
REGULARIZERS: Mapping[str, type[Regularizer]] = {part.__name__: part for part in _REGULARIZERS}
SEQUENTIAL = "nn.Sequential"
_NAMES: dict[type, str] = {part: name for name, part in [*MODULES.items(), *REGULARIZERS.items()]}
_DESCRIBED: dict[type, Callable[[Any], Arguments]] = {**_TORCH, **_OWN, **_REGULARIZERS}


def described(part: nn.Module | Regularizer) -> tuple[str, Arguments] | None:
    """The name of a part's class and its constructor's arguments as of now; None for what is not listed.

    A class that derives from a listed one is another, and not listed.
    """
    known = _DESCRIBED.get(type(part))
    return (_NAMES[type(part)], known(part)) if known else None


def class_named(name: str) -> type[Quantizer]:
    """The class of quantizers of that name, ours or one that this process has defined; of one source the latest.

    Raises: ValueError for an unknown name, with those near it, and for one that two sources have.
    """
    known = [each for each in _subclasses(Quantizer) if not inspect.isabstract(each)]
    classes = [each for each in known if each.__name__ == name]
    if not classes:
        names = sorted({each.__name__ for each in known})
        near = difflib.get_close_matches(str(name), names, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"no quantizer class is named {name!r} here{hint}; there are {', '.join(names)}. If it is a class of "
            "your own, import its module first"
        )
    if not all(same_source(each, classes[-1]) for each in classes):
        sources = ", ".join(f"{each.__module__}.{each.__qualname__}" for each in classes)
        raise ValueError(f"several quantizer classes are named {name!r}, {sources}; give each a name of its own")
    return classes[-1]


def same_source(a: type, b: type) -> bool:
    """Whether one is the other, or its definition has run again, as a notebook's cell."""
    return (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)


def _subclasses(of: Any) -> Iterator[type[Quantizer]]:
    for each in of.__subclasses__():
        yield each
        yield from _subclasses(each)
