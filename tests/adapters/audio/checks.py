"""Checks that models with a quantizer of several stages or rates plugged in must pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import quantizers
from quantizers import plug_in


def check_saved(model: nn.Module, path: str, build: Callable[[], nn.Module], folder: Path, run: Any) -> None:
    """The quantizer at a path, saved and loaded, makes another model with the same weights give the same.

    Args: build: a model without a quantizer of this library. run: what a model gives, a tensor or several.
    """
    quantizers.save(model.get_submodule(path).quantizer, folder / "quantizer.safetensors")
    other = plug_in(build(), quantizers.load(folder / "quantizer.safetensors")).eval()
    others = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{path}.")}
    missing, unexpected = other.load_state_dict(others, strict=False)
    assert not unexpected
    assert all(key.startswith(f"{path}.quantizer.") for key in missing)
    _check_same(run(other), run(model.eval()))
    third = plug_in(build(), quantizers.rebuild(quantizers.configuration(model.get_submodule(path).quantizer)))
    third.load_state_dict(model.state_dict())
    _check_same(run(third.eval()), run(model))


def _check_same(new: Any, old: Any) -> None:
    pairs = [(new, old)] if isinstance(new, Tensor) else zip(new, old, strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
