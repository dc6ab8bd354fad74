"""Modules that initialize their own weights when a model library loads a checkpoint.

Such a library builds the model on the meta device, loads the tensors in the checkpoint, and initializes the others
with a function of the model, which does not know the modules in this package. transformers skips a module whose
attribute `_is_hf_initialized` is true. In `SelfInitialized` that attribute is a property: it first initializes the
tensors that have no value yet with the module's own `reset_parameters`, and is then true.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self


class SelfInitialized(nn.Module):
    """A module whose `reset_parameters` initializes all of its own parameters and buffers.

    It records which of them were on the meta device, which stores no values, until a checkpoint provides them.
    """

    _without_values: frozenset[str] = frozenset()
    """Names of its own tensors that were on the meta device and that `load_state_dict` has not loaded since."""

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        self._remember_meta()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        super().register_buffer(name, tensor, persistent)
        self._remember_meta()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._remember_meta()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self._without_values:
            own = self._own_tensors()
            loaded = {name for name in own if prefix + name in state_dict and not own[name].is_meta}
            self._without_values -= loaded

    def initialize_missing(self) -> None:
        """Initialize the tensors of this module that left the meta device without a value; the others keep theirs.

        Raises: TypeError if there are such tensors and the class has no `reset_parameters`.
        """
        together = self._drawn_together()
        if not any(module._unfilled() for module in together):
            return
        reset = getattr(self, "reset_parameters", None)
        if reset is None:
            raise TypeError(
                f"{type(self).__name__} has no method reset_parameters, and its "
                f"{', '.join(sorted(self._unfilled()))} were built on the meta device and are not in the "
                "checkpoint; define a reset_parameters that initializes them"
            )
        present = [
            (module, name, tensor.detach().clone())
            for module in together
            for name, tensor in module._own_tensors().items()
            if name not in module._unfilled() and not tensor.is_meta
        ]
        with torch.no_grad():
            reset()
            for module, name, value in present:
                module._own_tensors()[name].copy_(value)
        for module in together:
            module._without_values -= module._unfilled()

    @property
    def _is_hf_initialized(self) -> bool:
        """True, after `initialize_missing`. transformers reads it, and then leaves this module alone."""
        self.initialize_missing()
        return True

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, initialized: bool) -> None:
        """Do nothing: the module itself records which of its tensors have a value."""

    def _drawn_together(self) -> tuple["SelfInitialized", ...]:
        """The modules whose tensors `reset_parameters` initializes; by default this one."""
        return (self,)

    def _unfilled(self) -> frozenset[str]:
        """Names of the tensors that left the meta device and that no loader has filled.

        Loaders are `load_state_dict` and that of transformers, which marks tensors with `_is_hf_initialized`.
        """
        own = self._own_tensors()
        return frozenset(
            name
            for name in self._without_values & own.keys()
            if not own[name].is_meta and not getattr(own[name], "_is_hf_initialized", False)
        )

    def _own_tensors(self) -> dict[str, Tensor]:
        tensors = {**self._parameters, **self._buffers}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def _remember_meta(self) -> None:
        on_meta = {name for name, tensor in self._own_tensors().items() if tensor.is_meta}
        if not on_meta <= self._without_values:
            self._without_values |= on_meta
