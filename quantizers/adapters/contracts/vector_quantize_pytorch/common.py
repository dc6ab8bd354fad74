"""Attributes of all contracts of vector-quantize-pytorch, the refusal of settings, and copies of projections."""

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
    """Has the attributes that models read from a quantizer of the package."""

    @property
    def dim(self) -> int:
        """The number of channels of x."""
        return self.quantizer.dim

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def codebook_dim(self) -> int:
        """The number of channels of a code."""
        return self.quantizer.code_dim

    @property
    def project_in(self) -> nn.Module:
        """The projection from the model's channels to those of a code."""
        return self.quantizer.project_in

    @property
    def project_out(self) -> nn.Module:
        """The projection from code space to the model's channels."""
        return self.quantizer.project_out

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, codebook_dim]; with several codebooks [n, K, ...]. Assign to it to set them."""
        codes: Tensor = self.quantizer.codebook
        if self._has_axis_of_one:
            return codes[None]
        return codes[0] if self._has_one_codebook else codes

    @codebook.setter
    def codebook(self, codes: Tensor) -> None:
        groups = self.quantizer.groups
        codes = codes[0] if self._has_axis_of_one else codes
        codebooks = codes if len(groups) > 1 and not self._has_one_codebook else [codes] * len(groups)
        for group, own in zip(groups, codebooks, strict=True):
            setter = getattr(group, "set_codebook", None)
            if setter is None:
                raise ValueError(f"{type(group).__name__} has no codes that can be set one by one")
            setter(own)

    @property
    def _has_axis_of_one(self) -> bool:
        """Whether the original's codebook has an axis of length 1 in front: [1, K, codebook_dim]."""
        return False

    @property
    def _has_one_codebook(self) -> bool:
        """Whether the original has one codebook, but the quantizer has several."""
        return False


class WithoutLossAdapter(LastLossAdapter, PackageAdapter):
    """For contracts without a loss: `loss` holds the loss of the last forward, for the training step to add."""

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, indices, self.loss = self.quantizer(x)
        return quantized, indices


def refuse(where: str, **settings: object) -> None:
    """Raises: ValueError for the first setting that is used, that is, not None, False or a weight of zero."""
    for name, value in settings.items():
        is_object = isinstance(value, Tensor | nn.Module)
        if is_object or value:
            _raise_not_supported(where, name, value)


def refuse_arguments(given: Mapping[str, object], defaults: Mapping[str, tuple[object, ...]]) -> None:
    """Check arguments of a forward that this library does not support.

    Args:
        given: the arguments, by name.
        defaults: for each argument of the original the values that have no effect.

    Raises: ValueError for the first argument with another value; TypeError for one that the original does not
    have.
    """
    for name, value in given.items():
        if name not in defaults:
            raise TypeError(f"forward() got an unexpected keyword argument {name!r}")
        if not any(value is default or _is_equal_number(value, default) for default in defaults[name]):
            _raise_not_supported("forward", name, value)


def _is_equal_number(value: object, default: object) -> bool:
    numbers = (int, float)
    return type(value) in numbers and type(default) in numbers and value == default


def _raise_not_supported(where: str, name: str, value: object) -> None:
    shown = f"a {type(value).__name__}" if isinstance(value, Tensor | nn.Module) else repr(value)
    raise ValueError(f"{where} has {name}={shown}, which this contract does not support; expected no {name}")


@contextmanager
def temporarily_frozen(quantizer: Quantizer, frozen: bool | None) -> Iterator[None]:
    """A context in which the codes do not move in training (frozen=True), or do (False). None changes nothing."""
    if frozen is None:
        yield
        return
    inside = [module for module in quantizer.modules() if isinstance(module, Quantizer)]
    before = [(module, module.frozen) for module in inside]  # outer quantizers come before inner ones
    learned = [(parameter, parameter.requires_grad) for parameter in quantizer.parameters()]
    _set_frozen(quantizer, frozen)
    try:
        yield
    finally:
        for module, was_frozen in before:
            _set_frozen(module, was_frozen)
        for parameter, learns in learned:
            parameter.requires_grad_(learns)


def _set_frozen(quantizer: Quantizer, frozen: bool) -> None:
    if frozen:
        quantizer.freeze()
    else:
        quantizer.unfreeze()


@torch.no_grad()
def copy_projections(original: Any, quantizer: Quantizer) -> None:
    """Replace the quantizer's projections by copies of the original's, which have the same numbers of channels."""
    for name in ("project_in", "project_out"):
        setattr(quantizer, name, _copied(getattr(original, name)))


def _copied(projection: nn.Module) -> nn.Module:
    """A copy in float32, made of this library's layers."""
    if isinstance(projection, nn.Linear):
        return Projection.of(projection)
    if isinstance(projection, nn.LayerNorm):
        norm = Norm(*projection.normalized_shape)
        norm.load_state_dict(projection.state_dict())
        return norm
    return nn.Sequential(*map(_copied, projection)) if isinstance(projection, nn.Sequential) else nn.Identity()
