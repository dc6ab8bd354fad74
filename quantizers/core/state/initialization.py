"""Modules that draw their own weights, and never have them drawn by the function of a model around them.

Libraries of models build a model on `meta`, fill in what the checkpoint holds, and initialise the rest by a
function of the model's own, which knows none of our classes. transformers asks each module whether it is
initialised already, by the attribute `_is_hf_initialized`, and leaves it alone if so. `SelfInitialized` answers
that question, after it has drawn whatever has no value yet by its own `reset_parameters`.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class SelfInitialized(nn.Module):
    """A module whose `reset_parameters` draws all parameters and buffers that are its own.

    Tensors that were on `meta`, which holds no values, are remembered until a checkpoint brings them.
    """

    _without_values: frozenset[str] = frozenset()
    """Its own tensors that were on `meta`, and that `load_state_dict` has not brought since."""

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
            brought = {name for name in own if prefix + name in state_dict and not own[name].is_meta}
            self._without_values -= brought

    def initialize_missing(self) -> None:
        """Draw those of its own tensors that came off `meta` without a value; the others stay as they are.

        Raises: TypeError where there are such tensors and the class has no `reset_parameters`.
        """
        together = self._drawn_together()
        if not any(part._unfilled() for part in together):
            return
        reset = getattr(self, "reset_parameters", None)
        if reset is None:
            raise TypeError(
                f"{type(self).__name__} has no method reset_parameters, and its "
                f"{', '.join(sorted(self._unfilled()))} were built on the meta device and are not in the "
                "checkpoint: define one that draws them"
            )
        present = [
            (part, name, tensor.detach().clone())
            for part in together
            for name, tensor in part._own_tensors().items()
            if name not in part._unfilled() and not tensor.is_meta
        ]
        with torch.no_grad():
            reset()
            for part, name, value in present:
                part._own_tensors()[name].copy_(value)
        for part in together:
            part._without_values -= part._unfilled()

    @property
    def _is_hf_initialized(self) -> bool:
        """What transformers asks of a module before it initialises it: True, after `initialize_missing`."""
        self.initialize_missing()
        return True

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, initialized: bool) -> None:
        """Nothing: whether a tensor has a value is not for others to say."""

    def _drawn_together(self) -> tuple["SelfInitialized", ...]:
        """The modules whose tensors `reset_parameters` draws: this one."""
        return (self,)

    def _unfilled(self) -> frozenset[str]:
        """Tensors that came off `meta`, and that neither `load_state_dict` nor transformers' loader brought."""
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
