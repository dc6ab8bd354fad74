"""The axis of codebooks in indices of FSQ and LFQ of vector-quantize-pytorch."""

from typing import Any

from torch import Tensor

from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter


def with_codebook_axis(adapter: PackageAdapter, indices: Tensor) -> Tensor:
    """Indices with an axis for codebooks, if the original has one."""
    return indices[..., None] if _has_codebook_axis(adapter) else indices


def decode_by_axes(adapter: PackageAdapter, indices: Tensor, by_axes: bool) -> Tensor:
    """The vectors of indices. If the number of axes determines the layout, the channels of maps are on axis 1."""
    if _has_codebook_axis(adapter):
        indices = indices[..., 0]
    is_map = by_axes and adapter.quantizer.channel_dim == -1 and indices.ndim - adapter.quantizer.composed >= 3
    vectors = adapter._decode_indices(indices)
    return vectors.movedim(-1, 1) if is_map else vectors


def _has_codebook_axis(adapter: PackageAdapter) -> bool:
    return getattr(adapter.original, "keep_num_codebooks_dim", False) and not adapter.quantizer.composed


def group_options(original: Any, width: int) -> dict[str, Any]:
    """The groups of a QuantizerSpec for the original's codebooks of `width` channels; none for one codebook."""
    return {"num_groups": original.num_codebooks, "group_dim": width} if original.num_codebooks > 1 else {}
