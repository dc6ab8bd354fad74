"""A model's configuration records which quantizers are plugged in, so that its own `save_pretrained` writes them.

The key "quantizers" of the configuration holds a list with one entry per quantizer: its path in the model ("at"),
its "contract", and the configuration of the quantizer itself ("quantizer").
"""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.serialization.configuration import configuration

KEY = "quantizers"

Entry = Mapping[str, Any]


def write_config(model: nn.Module) -> None:
    """Set the key in each configuration in a model, or remove it where nothing is plugged in any more.

    This works for the configurations of diffusers and transformers. A wrapper that has none, such as
    DataParallel, a compiled model or a training module, is passed over for the models inside it. A configuration
    of transformers is copied first, because other models may be built from it.
    """
    _copy_configurations(model)
    written: list[object] = []  # submodules share their model's configuration; the outermost module writes
    for module in model.modules():
        config = _config(module)
        if config is not None and not any(config is other for other in written):
            _write(module, config)
            written.append(_config(module))


def _copy_configurations(model: nn.Module) -> None:
    """Give a model with adapters its own copies of its configurations of transformers.

    Modules of the model that share a configuration share its copy.
    """
    modules = list(model.modules())
    if not any(isinstance(module, Adapter) for module in modules):
        return
    copies: dict[int, Any] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if hasattr(value, "save_pretrained") and hasattr(value, "to_diff_dict"):
                module.__dict__[name] = copy.deepcopy(value, copies)


def read_config(model: nn.Module) -> dict[str, Entry]:
    """The entries in the configurations in a model, by path; empty if there are none.

    transformers loads a base model from the files of one with a head, and the reverse. The paths are those in the
    model that is given here.

    Raises: ValueError for a path at which the model has nothing.
    """
    found: dict[str, Entry] = {}
    paths: set[str] = set()
    missing: set[str] = set()
    for name, module in model.named_modules():
        for entry in _entries(module):
            inner = dict(module.named_modules())
            at = _path_in(module, entry["at"], inner)
            if at is not None:
                found.setdefault(".".join(path for path in (name, at) if path), entry)
                paths.add(entry["at"])
            else:
                missing.add(entry["at"])  # a submodule that has the configuration of the whole model
    if missing - paths:
        raise ValueError(
            f"the configuration of {type(model).__name__} lists quantizers at {sorted(missing - paths)}, where "
            "the model has nothing"
        )
    return found


def _path_in(module: nn.Module, at: str, inner: Mapping[str, nn.Module]) -> str | None:
    """The path in a model of what the saved model had at `at`; None if the model has nothing there.

    The path is `at`, perhaps without the name of the base model in front.
    """
    base = getattr(module, "base_model_prefix", "")
    paths = (at, at.removeprefix(f"{base}.")) if base else (at,)
    return next((path for path in paths if path in inner), None)


def _write(module: nn.Module, config: Any) -> None:
    entries = [
        {"at": path, "contract": adapter.contract, "quantizer": configuration(adapter.quantizer)}
        for path, adapter in module.named_modules()
        if isinstance(adapter, Adapter)
    ]
    if not entries and not _entries(module):
        return
    if hasattr(module, "register_to_config"):
        module.register_to_config(**{KEY: entries})  # type: ignore[operator]
    elif entries:
        setattr(config, KEY, entries)
    else:
        delattr(config, KEY)


def _entries(module: nn.Module) -> list[Entry]:
    config = _config(module)
    entries = config.get(KEY) if hasattr(config, "get") else getattr(config, KEY, None)
    return entries or []


def _config(module: nn.Module) -> Any:
    """The configuration of a module that its library saves; None if it has none."""
    if "_orig_mod" in module._modules:  # a compiled module has the attributes of the module inside it
        return None
    config = getattr(module, "config", None)
    saved = hasattr(module, "register_to_config") or hasattr(config, "save_pretrained")
    return config if saved else None
