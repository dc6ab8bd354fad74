"""Run a module and leave it as it was: its tensors bit for bit, its attributes, its mode and random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """A context at whose end a module is as it was at its start."""
    attributes = [(part, dict(part.__dict__), _containers(part)) for part in module.modules()]
    values = [(tensor, tensor.detach().clone()) for tensor in _tensors(module)]
    devices = {tensor.device for tensor, _ in values if tensor.is_cuda}
    generator = random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(generator)
        for part, before, containers in attributes:
            part.__dict__.clear()
            part.__dict__.update(before)
            for container, contents in containers:
                _refill(container, contents)
        _write_back(values)


def _containers(part: nn.Module) -> list[tuple[Any, Any]]:
    """The dictionaries, lists and sets of a module, its parameters, buffers and submodules among them, each with a
    copy."""
    return [(value, value.copy()) for value in part.__dict__.values() if isinstance(value, dict | list | set)]


def _refill(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(contents)
    else:
        container.update(contents)


@torch.no_grad()
def _write_back(values: list[tuple[Tensor, Tensor]]) -> None:
    """Give tensors that have changed their earlier values."""
    for tensor, before in values:
        if not _same_values(tensor, before):
            tensor.copy_(before)


def _same_values(tensor: Tensor, before: Tensor) -> bool:
    if tensor.is_meta:
        return True
    both_nan = (tensor != tensor) & (before != before)
    return bool(((tensor == before) | both_nan).all())


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes."""
    found = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for part in module.modules():
        found |= {id(value): value for value in vars(part).values() if isinstance(value, Tensor)}
    return list(found.values())
