"""Checks that models with a quantizer of several stages or rates plugged in must pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import plug_in
from tests.adapters.common import METHODS

two_methods = pytest.mark.parametrize(
    "name",
    ["vq", "fsq", *(pytest.param(name, marks=pytest.mark.long) for name in METHODS if name not in ("vq", "fsq"))],
)
"""Two of the main methods in `make test`, the others in `make fuzz`."""


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


def drawn(quantizer: Any) -> Any:
    """A quantizer of EnCodec's stages with codes and averages from a seed, smaller from stage to stage."""
    generator = torch.Generator().manual_seed(0)
    for place, layer in enumerate(quantizer.vq.layers):
        book = layer._codebook
        book.embed.normal_(generator=generator).mul_(0.5**place)
        book.cluster_size.uniform_(1, 9, generator=generator)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    return quantizer


def check_moved(codes: Tensor, original: Tensor, before: Tensor, z: Tensor) -> None:
    """Codes [..., D] are those that the original has after the same step, and not those before it.

    Counts and sums of the N vectors z [B, D, T] are added up in another order, of residuals rounded twice.
    """
    eps = torch.finfo(torch.float32).eps
    rounding = 2 * z[:, 0].numel() * eps * float(z.abs().max())
    torch.testing.assert_close(codes, original, rtol=8 * eps, atol=rounding)
    assert not torch.equal(codes, before)
