"""A note in a model's configuration of what is plugged into it, so that its own `save_pretrained` writes it."""

from typing import Any

from torch import nn

from quantizers.adapters.adapter import Adapter
from quantizers.configuration import configuration

KEY = "quantizers"

Note = list[dict[str, Any]]


def write_note(model: nn.Module) -> None:
    """Set the note, or take it away where nothing is plugged in; a model without a configuration gets none.

    Known are the configurations of diffusers and of transformers.
    """
    note: Note = [
        {"at": path, "contract": module.contract, "quantizer": configuration(module.quantizer)}
        for path, module in model.named_modules()
        if isinstance(module, Adapter)
    ]
    config: Any = getattr(model, "config", None)
    if hasattr(model, "register_to_config"):
        if note or read_note(model):
            model.register_to_config(**{KEY: note})  # type: ignore[operator]
    elif hasattr(config, "save_pretrained"):
        setattr(config, KEY, note)
        if not note:
            delattr(config, KEY)


def read_note(model: nn.Module) -> Note:
    """What the configuration of a model says is plugged into it; nothing where it says nothing."""
    config: Any = getattr(model, "config", None)
    note: Note | None = config.get(KEY) if hasattr(config, "get") else getattr(config, KEY, None)
    return note or []
