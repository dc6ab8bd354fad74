"""Where quantizers stand in a model: by path, by contract, and in the place of another."""

from collections.abc import Mapping, Sequence

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.recognition import contract_of, contracts


def find(model: nn.Module) -> list[str]:
    """The path of the quantizer in a model, the outermost of a known contract; several paths for those that stand
    side by side and are one quantizer to the model.

    Raises: ValueError where there is none, or more than one.
    """
    found = _known(model)
    if not found:
        raise ValueError(
            f"model is {type(model).__name__}, in which no quantizer of a known contract was found "
            f"({', '.join(contracts())}); say at= where it stands and contract= how it is called"
        )
    if len(found) > 1 and not _are_one(found):
        places = ", ".join(f"{path!r} ({type(module).__name__})" for path, module in found.items())
        raise ValueError(
            f"model is {type(model).__name__}, which has quantizers at {places}; say at= which, or "
            f"at={list(found)} for all of them"
        )
    return list(found)


def plugged(model: nn.Module) -> dict[str, Adapter]:
    """What is plugged into a model, by its path."""
    check_model(model)
    return {path: module for path, module in model.named_modules() if isinstance(module, Adapter)}


def paths_of(model: nn.Module, at: str | Sequence[str] | None, contract: str | None = None) -> list[str]:
    """The paths that `at` stands for, each once. Raises: TypeError for what is no path."""
    check_model(model)
    if at is None:
        return find(model)
    given = [at] if isinstance(at, str) else at
    if not isinstance(given, Sequence) or not all(isinstance(path, str) for path in given):
        raise TypeError(f"at is {at!r}, expected the path of a quantizer in the model, or several")
    paths = []
    for path in given:
        module = module_at(model, path)
        inner = {} if contract is not None or contract_of(module) is not None else _known(module)
        paths += [f"{path}.{name}".removeprefix(".") for name in inner] if _are_one(inner) else [path]
    return list(dict.fromkeys(paths))


def distinct(model: nn.Module, paths: Sequence[str]) -> list[str]:
    """One path for each module. Raises: ValueError for no path, or for a module inside another."""
    places: dict[nn.Module, str] = {}
    for path in paths:
        places.setdefault(module_at(model, path), path)
    if not places:
        raise ValueError("at is empty, expected a path, or several")
    for inner, path in places.items():
        for outer in places:
            if outer is not inner and any(part is inner for part in outer.modules()):
                raise ValueError(f"{path!r} is inside {places[outer]!r}, expected places that stand apart")
    return list(places.values())


def module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"model is {type(model).__name__}, which has nothing at {path!r}: {error}") from error


def _known(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a known contract in a model by path, without those inside another."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") or outer == "" for outer in found)
        if not inside and contract_of(module) is not None:
            found[path] = module
    return found


def _are_one(found: Mapping[str, nn.Module]) -> bool:
    """Whether known modules are one quantizer to the model that holds them."""
    held_by = {path.rpartition(".")[0] for path in found}
    kept = [contract_of(module) for module in found.values()]
    return len(held_by) == 1 and len(set(kept)) == 1 and kept[0] is not None and kept[0].side_by_side


def check_model(model: nn.Module) -> None:
    """Raises: TypeError for what is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected an nn.Module")


def check_not_compiled(path: str) -> None:
    """Raises: ValueError for a module that is compiled by itself, which calls what it was made of, for good."""
    outer, _, name = path.rpartition(".")
    if name == "_orig_mod":
        raise ValueError(
            f"the quantizer at {outer!r} is compiled by itself, and would go on to run as it is; plug in first, "
            "then compile, or compile a module around it"
        )


def replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model with `new` wherever `old` stood: a module may have several names."""
    if model is old:
        return new
    places = [path for path, module in model.named_modules(remove_duplicate=False) if module is old]
    for path in places:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    return model
