"""Where the codebooks of a composition lie, and which vectors reach them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer, all_valid
from quantizers.composite.enclosing import EnclosingQuantizer
from quantizers.core.base import Quantizer
from quantizers.kernels.common.wide import has_float64


class Place(NamedTuple):
    """One position of a quantizer without components in a composition."""

    leaf: Quantizer
    path: tuple[int, ...]
    """The position among the components at each level, from the outside."""
    column: int
    """Its first index among those of the whole composition."""
    follows: bool
    """Whether its vectors depend on the indices before it."""


def places_of(root: Quantizer) -> list[Place]:
    """All places, in the order of the indices. A shared quantizer has several."""
    return list(_walk(root, (), 0, False))


def _walk(node: Quantizer, path: tuple[int, ...], column: int, follows: bool) -> Iterator[Place]:
    if isinstance(node, EnclosingQuantizer):
        yield from _walk(node.quantizer, (*path, 0), column, follows)
    elif isinstance(node, ComposedQuantizer):
        for position, component in enumerate(node.components):
            later = follows or (position > 0 and len(node.stages) > 1)
            yield from _walk(component, (*path, position), column, later)
            column += component.num_codebooks
    else:
        yield Place(node, path, column, follows)


def reaching(root: Quantizer, path: Sequence[int], x: Tensor, indices: Tensor) -> Tensor:
    """The vectors [N, leaf.dim] that reach the quantizer at a path.

    Args:
        x: [N, root.dim].
        indices: [N, n], those of the codebooks before it.
    """
    node, vectors = root, x
    for position in path:
        projected = node._project_in(all_valid(vectors))
        if isinstance(node, EnclosingQuantizer):
            node, vectors = node.quantizer, projected.vectors
            continue
        assert isinstance(node, ComposedQuantizer)
        components = node.components
        before = sum(component.num_codebooks for component in components[:position])
        known = _padded(indices, before + components[position].num_codebooks)
        node, vectors, _ = node._component_inputs(projected, known)[position]
        indices = indices[:, before:]
    return vectors


def around(root: Quantizer, path: Sequence[int]) -> Iterator[tuple[Quantizer, tuple[int, ...]]]:
    """The quantizers around the one at a path, and their paths, from the outside."""
    node = root
    for depth, position in enumerate(path):
        yield node, tuple(path[:depth])
        node = _components(node)[position]


def device_of(quantizer: Quantizer) -> torch.device:
    """Where a quantizer is: the device of its first tensor, and the CPU if it has none."""
    return next((tensor.device for tensor in quantizer.state_dict().values()), torch.device("cpu"))


@contextmanager
def on_wide_device(quantizer: Quantizer) -> Iterator[None]:
    """Move a quantizer to the CPU for a block, if its device has no float64 for the sums over all vectors."""
    device = device_of(quantizer)
    if has_float64(device):
        yield
        return
    quantizer.cpu()
    try:
        yield
    finally:
        quantizer.to(device)


def _components(node: Quantizer) -> Sequence[Quantizer]:
    if isinstance(node, EnclosingQuantizer):
        return [node.quantizer]
    assert isinstance(node, ComposedQuantizer)
    return node.components


def _padded(indices: Tensor, columns: int) -> Tensor:
    """The first columns of indices [N, n], with zeros where they are missing: no vector depends on those."""
    missing = indices.new_zeros(len(indices), max(0, columns - indices.shape[1]))
    return torch.cat([indices[:, :columns], missing], -1)
