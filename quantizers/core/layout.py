"""Conversion between a model's tensor and rows of vectors: axes, masks, and vectors that are not finite."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_tensor
from quantizers.kernels.rows.operation import finite_rows


class Rows(NamedTuple):
    """A tensor of vectors, flattened to N rows."""

    vectors: Tensor  # [N, dim], float32 or float64; a row that is not valid is zero
    valid: Tensor  # [N] bool: unmasked and finite
    shape: torch.Size  # of x without its channel axis
    mask: Tensor | None = None  # [N] bool, False for masked rows; None if none is masked
    sizes: Sequence[Any] | None = None  # of the scales of a map, where the call gives them

    def with_vectors(self, vectors: Tensor, valid: Tensor | None = None) -> "Rows":
        """Return the same rows with other vectors. Before torch 2.7, graphs cannot contain `_replace`."""
        return Rows(vectors, self.valid if valid is None else valid, self.shape, self.mask, self.sizes)


def to_rows(
    x: Tensor, mask: Tensor | None, dim: int, channel_dim: int, sizes: Sequence[Any] | None = None
) -> Rows:
    """Flatten x to rows of `dim` channels, and set rows that do not count to zero.

    Args:
        x: any floating dtype of at least 16 bits, with `dim` channels on axis `channel_dim`.
        mask: bool, x's shape without that axis, True for vectors that count; None if all of them count.
        dim: the expected number of channels.
        channel_dim: the axis of x that holds its channels.
        sizes: of the scales of a map, which the rows carry along.

    Returns: N rows in float32, or in float64 for float64 input. A row counts if it is unmasked and finite.

    Raises: ValueError for a shape or device that does not fit; TypeError for a dtype that does not, and for
        something other than a dense tensor.
    """
    _check_input(x, dim, channel_dim)
    channels_last = x if channel_dim in (-1, x.ndim - 1) else x.movedim(channel_dim, -1)
    shape = channels_last.shape[:-1]
    vectors = channels_last.reshape(-1, dim)
    if mask is not None:
        mask = _check_mask(mask, shape, x.device).reshape(-1)
    vectors, valid = finite_rows(vectors, mask)
    return Rows(vectors, valid, shape, mask, sizes)


def from_rows(rows: Tensor, shape: torch.Size, channel_dim: int, like: Tensor | None = None) -> Tensor:
    """Reshape rows to a model's tensor.

    Args:
        rows: [N, dim].
        shape: the shape of the result without its channel axis, with N elements.
        channel_dim: the axis of the result that holds its channels.
        like: a tensor whose memory format the result follows: contiguous, or channels last if `like` is not
            contiguous. Default: contiguous.
    """
    result = rows.reshape(*shape, rows.shape[-1])
    if channel_dim not in (-1, len(shape)):
        result = result.movedim(-1, channel_dim)
    return result.contiguous() if like is None or like.is_contiguous() else result


def _check_input(x: Tensor, dim: int, channel_dim: int) -> None:
    if not check_tensor("x", x).is_floating_point() or x.dtype.itemsize < 2:
        raise TypeError(f"x has dtype {x.dtype}, expected a floating dtype of at least 16 bits")
    if not -x.ndim <= channel_dim < x.ndim:
        raise ValueError(f"x has shape {tuple(x.shape)}, which has no axis channel_dim={channel_dim}")
    if x.shape[channel_dim] != dim:
        raise ValueError(
            f"x has {x.shape[channel_dim]} channels on axis {channel_dim} (shape {tuple(x.shape)}), "
            f"expected dim={dim}"
        )


def _check_mask(mask: Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    if check_tensor("mask", mask).dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool, True for vectors that count")
    if mask.shape != shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected x's shape without its channels, {tuple(shape)}"
        )
    if mask.device != device:
        raise ValueError(f"mask is on {mask.device}, expected x's device, {device}")
    return mask
