"""The sizes and options that a model expects of its quantizer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class QuantizerSpec(NamedTuple):
    """What a model needs from its quantizer, read off the quantizer that it has."""

    dim: int
    """The number of channels of the quantizer's input."""
    codebook_size: int | tuple[int, ...]
    """The number of codes; a tuple with one number per stage if the stages differ."""
    channel_dim: int
    """The axis of the input that holds its channels."""
    num_quantizers: int | None = None
    """The number of residual stages; None for a quantizer with one code per vector."""
    options: Mapping[str, Any] = NO_OPTIONS
    """Options that make a new quantizer work like the model's. Each is set if the new quantizer takes it."""
    keep_codebook_options: Mapping[str, Any] = NO_OPTIONS
    """Further options, set with `keep_codebook=True`: they make losses and search the same as the model's."""
    num_groups: int | None = None
    """The number of groups of channels with one code each; None for a quantizer with one code per vector."""
    gumbel_options: Mapping[str, Any] = NO_OPTIONS
    """Like `options`, but for Gumbel quantizers only: the temperature of other methods means something else."""
    group_dim: int | None = None
    """The number of channels of a group, if that is not `dim / num_groups`: x is then projected first."""
    shared_codebook: bool = False
    """Whether all groups have the same codes."""
    scales: tuple[float, ...] | None = None
    """The size of each scale relative to the last one, for a quantizer of maps; None for one of single vectors."""
    axes: int = 2
    """The number of axes of positions of these maps: 1 for sequences, 2 for images, 3 for videos."""
    projects_scales: bool = False
    """Whether each scale has projections of its own, as a stage of a residual quantizer does."""


def random_vectors(spec: QuantizerSpec, positions: int) -> Tensor:
    """Two samples in the layout of a spec, with eight positions on each of `positions` axes."""
    sizes = [2, *[8] * positions]
    sizes.insert(len(sizes) if spec.channel_dim == -1 else spec.channel_dim, spec.dim)
    return torch.randn(sizes)
