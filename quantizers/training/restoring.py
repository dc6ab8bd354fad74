"""What running a model changes besides its result, and restoring it: modes, buffers, random generators."""

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantizers.core.base import Quantizer
from quantizers.core.wrappers import unwrapped


class SavedBuffers:
    """The buffers of a model as they are now, except those of its quantizers, for restoring them later."""

    def __init__(self, model: nn.Module, quantizers: Collection[Quantizer]) -> None:
        inside = {module for quantizer in quantizers for module in quantizer.modules()}
        self._buffers = [
            (module, name, buffer, None if buffer is None else buffer.clone())
            for module in model.modules()
            if module not in inside
            for name, buffer in module._buffers.items()
            if buffer is None or not nn.parameter.is_lazy(buffer)
        ]

    def restore(self) -> None:
        """Give each buffer its old value, in the same tensor.

        A non-persistent buffer that has another size now is a cache, whose module may also store the new size in
        an attribute. It stays as it is.
        """
        for module, name, buffer, value in self._buffers:
            now = module._buffers.get(name)
            if name in module._non_persistent_buffers_set and _shape(now) != _shape(value):
                continue
            module._buffers[name] = buffer
            if buffer is not None and value is not None and not torch.equal(buffer, value):
                buffer.copy_(value)


def _shape(buffer: Tensor | None) -> torch.Size | None:
    return None if buffer is None else buffer.shape


@contextmanager
def modes(model: nn.Module, quantizers: Collection[Quantizer], training: bool) -> Iterator[None]:
    """Set training or evaluation mode as `warm_start` describes, and restore each module's mode at the end."""
    before = [(module, module.training) for module in model.modules()]
    inside = unwrapped(model)
    begins_training = training and not inside.training
    try:
        if begins_training:
            inside.train()  # the model may override it, to leave some modules in evaluation mode
        evaluated = (
            [module for quantizer in quantizers for module in quantizer.modules()] if training else model.modules()
        )
        for module in evaluated:
            module.training = False
        yield
    finally:
        if begins_training:
            inside.eval()
        for module, mode in before:
            module.training = mode


@contextmanager
def random_generators(model: nn.Module) -> Iterator[None]:
    """Restore the global random generators of Python, numpy and torch, on the CPU and on the model's devices."""
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())} - {torch.device("cpu")}
    states = [(device, _state_on(device)) for device in devices if device.type != "meta"]
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        for device, state in states:
            _set_state(device, state)


def _state_on(device: torch.device) -> Tensor:
    generators: Any = torch.get_device_module(device)
    state: Tensor = generators.get_rng_state(*_numbered(device))
    return state


def _set_state(device: torch.device, state: Tensor) -> None:
    generators: Any = torch.get_device_module(device)
    generators.set_rng_state(state, *_numbered(device))


def _numbered(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is only one "mps" device, which takes no argument
