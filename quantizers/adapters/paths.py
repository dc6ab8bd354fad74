"""The paths of quantizers in a model, and the replacement of a module."""

import re
from collections.abc import Mapping, Sequence

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.recognition import (
    LISTED,
    contract_of,
    overridden_methods,
    parent_contract,
)
from quantizers.core.base import Quantizer

_QUANTIZER = r"(Quantize|Quantizer|VectorQuantization|ScalarQuantization|VQ|FSQ|LFQ)\d*$"
"""What the names of modules that quantize vectors end in."""


def find_paths(model: nn.Module) -> list[str]:
    """The path of the model's quantizer: the outermost module that follows a known contract.

    The list has several paths if several modules side by side act as one quantizer.

    Raises: ValueError if there is no quantizer, or more than one.
    """
    found = _known_quantizers(model)
    if not found:
        raise ValueError(
            f"model is {type(model).__name__}, in which no quantizer of a known contract was found; {_hint(model)}"
        )
    if len(found) > 1 and not _act_as_one(found):
        listed = ", ".join(f"{path!r} ({type(module).__name__})" for path, module in found.items())
        raise ValueError(
            f"model is {type(model).__name__}, which has quantizers at {listed}; pass one path as at=, or "
            f"at={list(found)} for all of them"
        )
    _check_all_known(model, found)
    return list(found)


def plugged(model: nn.Module) -> dict[str, Adapter]:
    """The adapters that are plugged into a model, by path."""
    check_model(model)
    return {path: module for path, module in model.named_modules() if isinstance(module, Adapter)}


def resolve_paths(model: nn.Module, at: str | Sequence[str] | None, contract: str | None = None) -> list[str]:
    """The paths that the argument `at` names, without duplicates. Raises: TypeError for anything but paths."""
    check_model(model)
    if at is None:
        return find_paths(model)
    given = [at] if isinstance(at, str) else at
    if not isinstance(given, Sequence) or not all(isinstance(path, str) for path in given):
        raise TypeError(f"at is {at!r}, expected the path of a quantizer in the model, or several")
    paths = []
    for path in given:
        module = module_at(model, path)
        inner = {} if contract is not None or contract_of(module) is not None else _known_quantizers(module)
        paths += [f"{path}.{name}".removeprefix(".") for name in inner] if _act_as_one(inner) else [path]
    return list(dict.fromkeys(paths))


def distinct_paths(model: nn.Module, paths: Sequence[str]) -> list[str]:
    """One path for each module. Raises: ValueError for no path, and for a module inside another one."""
    path_of: dict[nn.Module, str] = {}
    for path in paths:
        path_of.setdefault(module_at(model, path), path)
    if not path_of:
        raise ValueError("at is empty, expected one path or more")
    for inner, path in path_of.items():
        for outer in path_of:
            if outer is not inner and any(module is inner for module in outer.modules()):
                raise ValueError(f"{path!r} is inside {path_of[outer]!r}; expected modules that are apart")
    return list(path_of.values())


def module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"model is {type(model).__name__}, which has nothing at {path!r}: {error}") from error


def _known_quantizers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules in a model that follow a known contract, by path, without those inside another one."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(_within(path, outer) for outer in found)
        if not inside and contract_of(module) is not None:
            found[path] = module
    return found


def _hint(model: nn.Module) -> str:
    """What to pass for the quantizer that was not found: named if its class derives from a known one."""
    for path, module in model.named_modules():
        parent = None if isinstance(module, Quantizer) else parent_contract(module)
        if parent is not None:
            contract, base = parent
            overridden = overridden_methods(module, contract)
            without = f", without its own {', '.join(overridden)}" if overridden else ""
            return (
                f"at {path!r} is {type(module).__name__}, which derives from {base.__name__}: if the model calls "
                f"it in the same way, pass at={path!r}, contract={contract.contract!r}{without}"
            )
    return f"pass its path as at= and its contract as contract=, {LISTED}"


def _check_all_known(model: nn.Module, found: Mapping[str, nn.Module]) -> None:
    """Raises: ValueError if the model has a quantizer of no known contract beside those that were found."""
    apart = [
        (path, module)
        for path, module in model.named_modules()
        if not any(_within(path, known) or _within(known, path) for known in found)
    ]
    unknown = next(((path, module) for path, module in apart if _named_quantizer(module)), None)
    if unknown is not None:
        path, module = unknown
        known, of = next(iter(found.items()))
        raise ValueError(
            f"model is {type(model).__name__}, which has a quantizer at {known!r} ({type(of).__name__}), and one "
            f"of no known contract at {path!r} ({type(module).__name__}); pass at={known!r} to replace the first "
            "alone, and plug in again with at= and contract= to replace the other"
        )


def _within(path: str, outer: str) -> bool:
    return outer == "" or path == outer or path.startswith(f"{outer}.")


def _named_quantizer(module: nn.Module) -> bool:
    """Whether a module is named as a quantizer of vectors, and part of neither PyTorch nor this library."""
    foreign = type(module).__module__.partition(".")[0] not in ("torch", "quantizers")
    return foreign and re.search(_QUANTIZER, type(module).__name__) is not None


def _act_as_one(found: Mapping[str, nn.Module]) -> bool:
    """Whether these quantizers are in one module, and are one quantizer to it."""
    parents = {path.rpartition(".")[0] for path in found}
    followed = [contract_of(module) for module in found.values()]
    first = next(iter(followed), None)
    return len(parents) == 1 and len(set(followed)) == 1 and first is not None and first.replaced_together


def check_model(model: nn.Module) -> None:
    """Raises: TypeError unless model is an nn.Module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected an nn.Module")


def check_not_compiled(path: str) -> None:
    """Raises: ValueError for a compiled module, which would go on to run the old quantizer."""
    outer, _, name = path.rpartition(".")
    if name == "_orig_mod":
        raise ValueError(
            f"the quantizer at {outer!r} was compiled on its own and would go on to run unchanged; plug in first, "
            "then compile, or compile a module that contains it"
        )


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replace `old` by `new` under each of its names in the model.

    Returns: the model; `new` if the model is `old`.
    """
    if model is old:
        return new
    paths = [path for path, module in model.named_modules(remove_duplicate=False) if module is old]
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    return model
