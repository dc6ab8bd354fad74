"""Whether a new quantizer trains: as the part of the model does in which it is put, unless the caller decides."""

import warnings
from collections.abc import Sequence

from torch import nn

from quantizers.adapters.bases.adapter import Adapter


def set_trainable(
    model: nn.Module, adapters: Sequence[tuple[str, nn.Module, Adapter]], trainable: bool | None
) -> None:
    """Freeze new quantizers, or leave them as they were built.

    Args:
        adapters: the path, the module to replace and the adapter of each.
        trainable: None freezes those that go into a frozen part of the model, and warns.
    """
    originals = {id(parameter) for _, module, _ in adapters for parameter in module.parameters()}
    frozen = [
        (path, adapter)
        for path, module, adapter in adapters
        if (_is_frozen(model, path, module, originals) if trainable is None else not trainable)
    ]
    for _, adapter in frozen:
        _freeze(adapter, originals)
    if frozen and trainable is None:
        warnings.warn(
            f"the model is frozen at {', '.join(repr(path) for path, _ in frozen)}, so the new quantizer is "
            "frozen too; pass trainable=True to train it, or trainable=False to freeze it without this warning",
            stacklevel=3,
        )


def _is_frozen(model: nn.Module, path: str, module: nn.Module, originals: set[int]) -> bool:
    """Whether the module does not train, and neither does the smallest part of the model that surrounds it.

    Moving averages are parameters without gradients, or none at all, in a model that trains.
    """
    if any(parameter.requires_grad for parameter in module.parameters()):
        return False
    names = path.split(".") if path else []
    for length in range(len(names) - 1, -1, -1):
        around = model.get_submodule(".".join(names[:length]))
        others = [parameter for parameter in around.parameters() if id(parameter) not in originals]
        if others:
            return not any(parameter.requires_grad for parameter in others)
    return False


def _freeze(adapter: Adapter, originals: set[int]) -> None:
    """Freeze an adapter's parameters, without those that it shares with the original, and its moving averages."""
    adapter.quantizer.freeze()
    for parameter in adapter.parameters():
        if id(parameter) not in originals:
            parameter.requires_grad_(False)
