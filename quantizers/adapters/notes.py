"""A note in a model's configuration of what is plugged into it, so that its own `save_pretrained` writes it."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.serialization.configuration import configuration

KEY = "quantizers"

Entry = Mapping[str, Any]


def write_notes(model: nn.Module) -> None:
    """Set the note in each configuration in a model, or take it away where nothing is plugged in behind it.

    Known are the configurations of diffusers and of transformers. A wrapper that has none, as DataParallel, a
    compiled model or a training module, leaves it to the models in it. A configuration of transformers, which
    other models may be built from, is copied first.
    """
    _own_configurations(model)
    written: list[object] = []  # modules of one model share its configuration, and the outermost of them tells
    for module in model.modules():
        config = _config(module)
        if config is not None and not any(config is other for other in written):
            _write(module, config)
            written.append(_config(module))


def _own_configurations(model: nn.Module) -> None:
    """Give a model that is to be noted in configurations of transformers copies that no other model has.

    What the modules of the model share, they share afterwards.
    """
    modules = list(model.modules())
    if not any(isinstance(module, Adapter) for module in modules):
        return
    copies: dict[int, Any] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if hasattr(value, "save_pretrained") and hasattr(value, "to_diff_dict"):
                module.__dict__[name] = copy.deepcopy(value, copies)


def read_notes(model: nn.Module) -> dict[str, Entry]:
    """What the configurations in a model say is plugged into it, by path; nothing where they say nothing.

    Of a base model and one with a head, which transformers loads from the files of one another, the path is
    that in the model that is given.

    Raises: ValueError for a path at which the model has nothing.
    """
    found: dict[str, Entry] = {}
    paths: set[str] = set()
    missing: set[str] = set()
    for name, module in model.named_modules():
        for entry in _note(module):
            inner = dict(module.named_modules())
            at = _path_in(module, entry["at"], inner)
            if at is not None:
                found.setdefault(".".join(part for part in (name, at) if part), entry)
                paths.add(entry["at"])
            else:
                missing.add(entry["at"])  # a part of the model, which knows the configuration of the whole
    if missing - paths:
        raise ValueError(
            f"the configuration of {type(model).__name__} tells of quantizers at {sorted(missing - paths)}, where "
            "it has nothing"
        )
    return found


def _path_in(module: nn.Module, at: str, inner: Mapping[str, nn.Module]) -> str | None:
    """Where in a model is what the saved one had at a path: there, or with the name of the base model before it,
    or without that; None where it has nothing."""
    base = getattr(module, "base_model_prefix", "")
    paths = (at, at.removeprefix(f"{base}.")) if base else (at,)
    return next((path for path in paths if path in inner), None)


def _write(module: nn.Module, config: Any) -> None:
    note = [
        {"at": path, "contract": adapter.contract, "quantizer": configuration(adapter.quantizer)}
        for path, adapter in module.named_modules()
        if isinstance(adapter, Adapter)
    ]
    if not note and not _note(module):
        return
    if hasattr(module, "register_to_config"):
        module.register_to_config(**{KEY: note})  # type: ignore[operator]
    elif note:
        setattr(config, KEY, note)
    else:
        delattr(config, KEY)


def _note(module: nn.Module) -> list[Entry]:
    config = _config(module)
    note = config.get(KEY) if hasattr(config, "get") else getattr(config, KEY, None)
    return note or []


def _config(module: nn.Module) -> Any:
    """The configuration of a module that its library saves; None where it has none."""
    if "_orig_mod" in module._modules:  # compiled: attributes are those of the module in it
        return None
    config = getattr(module, "config", None)
    saved = hasattr(module, "register_to_config") or hasattr(config, "save_pretrained")
    return config if saved else None
