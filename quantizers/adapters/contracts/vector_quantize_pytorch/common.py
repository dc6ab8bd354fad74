"""What the contracts of vector-quantize-pytorch have in common: attributes, and arguments that have no meaning."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.last_loss import LastLossAdapter
from quantizers.core.base import Quantizer
from quantizers.core.projection import Norm, Projection


class PackageAdapter(Adapter):
    """The attributes that models read of a quantizer of the package."""

    @property
    def dim(self) -> int:
        """Channels of x."""
        return self.quantizer.dim

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """Channels of a code."""
        return self.quantizer.code_dim

    @property
    def project_in(self) -> nn.Module:
        """From the model's channels to those of a code."""
        return self.quantizer.project_in

    @property
    def project_out(self) -> nn.Module:
        """And back."""
        return self.quantizer.project_out

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, codebook_dim]; of several codebooks [n, K, ...]. Assign to set them."""
        codes: Tensor = self.quantizer.codebook
        if self._has_axis_of_one:
            return codes[None]
        return codes[0] if self._has_one_codebook else codes

    @codebook.setter
    def codebook(self, codes: Tensor) -> None:
        parts = self.quantizer.groups
        codes = codes[0] if self._has_axis_of_one else codes
        books = codes if len(parts) > 1 and not self._has_one_codebook else [codes] * len(parts)
        for part, own in zip(parts, books, strict=True):
            setter = getattr(part, "set_codebook", None)
            if setter is None:
                raise ValueError(f"{type(part).__name__} has no codes that can be set one by one")
            setter(own)

    @property
    def _has_axis_of_one(self) -> bool:
        """Whether the original has its codes as the only ones of several, [1, K, codebook_dim]."""
        return False

    @property
    def _has_one_codebook(self) -> bool:
        """Whether the original has one codebook where the quantizer has several."""
        return False


class WithoutLossAdapter(LastLossAdapter, PackageAdapter):
    """For a contract that returns no loss: `loss` is that of the last forward, for the training step to add."""

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, self.loss = self.quantizer(x)
        return quantized, indices


def refuse(where: str, **settings: object) -> None:
    """Raises: ValueError for the first setting that is given: not None, False, or a weight of zero."""
    for name, value in settings.items():
        is_object = isinstance(value, Tensor | nn.Module)
        if is_object or value:
            _raise_not_kept(where, name, value)


def refuse_arguments(given: Mapping[str, object], defaults: Mapping[str, tuple[object, ...]]) -> None:
    """Raises: ValueError for the first argument of a forward that has none of the values that change nothing,
    `defaults`; TypeError for one that the original does not have."""
    for name, value in given.items():
        if name not in defaults:
            raise TypeError(f"forward() got an unexpected keyword argument {name!r}")
        if not any(value is default or _is_equal_number(value, default) for default in defaults[name]):
            _raise_not_kept("forward", name, value)


def _is_equal_number(value: object, default: object) -> bool:
    numbers = (int, float)
    return type(value) in numbers and type(default) in numbers and value == default


def _raise_not_kept(where: str, name: str, value: object) -> None:
    shown = f"a {type(value).__name__}" if isinstance(value, Tensor | nn.Module) else repr(value)
    raise ValueError(f"{where} has {name}={shown}, which this contract does not keep; expected none")


@contextmanager
def frozen_if(quantizer: Quantizer, frozen: bool | None) -> Iterator[None]:
    """Within it the codes stay as they are in training, or move if `frozen` is False; as before for None."""
    if frozen is None:
        yield
        return
    parts = [part for part in quantizer.modules() if isinstance(part, Quantizer)]
    before = [(part, part.frozen) for part in parts]  # those that hold others come first
    learned = [(parameter, parameter.requires_grad) for parameter in quantizer.parameters()]
    _set_frozen(quantizer, frozen)
    try:
        yield
    finally:
        for part, was_frozen in before:
            _set_frozen(part, was_frozen)
        for parameter, learns in learned:
            parameter.requires_grad_(learns)


def _set_frozen(quantizer: Quantizer, frozen: bool) -> None:
    if frozen:
        quantizer.freeze()
    else:
        quantizer.unfreeze()


@torch.no_grad()
def keep_projections(original: Any, quantizer: Quantizer) -> None:
    """Copies of the original's projections take the place of the quantizer's, which leads to as many channels."""
    for name in ("project_in", "project_out"):
        setattr(quantizer, name, _copied(getattr(original, name)))


def _copied(projection: nn.Module) -> nn.Module:
    """A copy in float32, of layers of ours."""
    if isinstance(projection, nn.Linear):
        return Projection.of(projection)
    if isinstance(projection, nn.LayerNorm):
        norm = Norm(*projection.normalized_shape)
        norm.load_state_dict(projection.state_dict())
        return norm
    return nn.Sequential(*map(_copied, projection)) if isinstance(projection, nn.Sequential) else nn.Identity()
