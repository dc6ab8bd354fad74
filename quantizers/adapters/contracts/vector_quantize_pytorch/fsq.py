"""FSQ and LFQ of vector-quantize-pytorch."""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Place, groups_of
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    PackageAdapter,
    WithoutLossAdapter,
    keep_projections,
    refuse,
    refuse_arguments,
)
from quantizers.core.base import Quantizer
from quantizers.kernels.reference.levels import index_digits, level_values, round_bounded
from quantizers.kernels.vectors import integers
from quantizers.scalar.fsq import FSQ


class FSQAdapter(WithoutLossAdapter):
    """`FSQ`: x [B, N, dim] → (quantized [B, N, dim], indices [B, N]).

    With four axes or more, or with `channel_first`, x is [B, dim, ...] and indices are [B, ...]; int64, where the
    original has int32. With `keep_num_codebooks_dim` they have one more axis, with `num_codebooks` of that length:
    a quantizer for each ("grouped"). The contract has no loss: to train a quantizer that has one, add `loss`, that
    of the last forward.

    A new FSQ gets the original's levels. Kept with them: the projections; codes and indices are then the
    original's, but where a channel is within rounding of the edge between two levels.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_fsq"
    classes: ClassVar[tuple[str, ...]] = ("FSQ",)

    @classmethod
    def read(cls, original: Any) -> Place:
        levels = tuple(original._levels.tolist())
        size = int(original._levels.long().prod())
        axis = 1 if original.channel_first else -1
        return Place(original.dim, size, axis, options={"levels": levels}, **_codebooks(original, len(levels)))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """FSQ's grid, [K, channels]. Raises: ValueError for another grid than this library's."""
        _refuse_other_grids(original)
        levels = original._levels.long()
        digits = index_digits(torch.arange(int(levels.prod()), device=levels.device), levels)
        return level_values(digits, levels, torch.float32)

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        _refuse_other_grids(original)
        levels = tuple(original._levels.tolist())
        count = original.num_codebooks
        for part in groups_of(quantizer, count) if count > 1 else [quantizer]:
            own = (part.level_counts, part.bound) if isinstance(part, FSQ) else None
            if own != (levels, "tanh"):
                raise ValueError(
                    f"quantizer is {type(part).__name__} with {own or 'no levels'}, and the codes to be kept "
                    f"have {(levels, 'tanh')}: expected 'fsq' with these levels and this bound"
                )
        keep_projections(original, quantizer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As above; indices None where the original has return_indices=False."""
        of_map = x.ndim >= 4 and self.quantizer.channel_dim == -1
        quantized, indices = self._quantize(x.movedim(1, -1) if of_map else x)
        returned = with_codebook_axis(self, indices) if getattr(self.original, "return_indices", True) else None
        return quantized.movedim(-1, 1) if of_map else quantized, returned

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The vectors of indices; of maps [B, H, W] with the channels on axis 1."""
        return decoded(self, indices, by_axes=True)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """The indices [...] of codes [..., channels] that are on the grid.

        Raises: ValueError for another quantizer than FSQ.
        """
        grid = self._grid
        if not isinstance(grid, FSQ):
            raise ValueError(f"codes_to_indices is for FSQ's grid, and quantizer is {type(grid).__name__}")
        return round_bounded(codes, integers(grid.level_counts, codes.device))[1]

    @property
    def implicit_codebook(self) -> Tensor:
        """All codes, [K, channels]; of several codebooks those of the first: the original's are all alike."""
        return self._grid.codebook

    @property
    def _grid(self) -> Quantizer:
        return self.quantizer.groups[0] if getattr(self.original, "num_codebooks", 1) > 1 else self.quantizer


class LFQOutput(NamedTuple):
    """What LFQ returns."""

    quantized: Tensor
    indices: Tensor
    entropy_aux_loss: Tensor


class LFQAdapter(PackageAdapter):
    """`LFQ`: x [B, N, dim], or [B, dim, ...] → (quantized, indices [B, ...], entropy_aux_loss []).

    The channels are on axis 1 with `channel_first`, and where that is None of maps, with four axes or more. mask
    [B, N] bool. With `num_codebooks` a quantizer for each ("grouped"): indices [B, ..., num_codebooks]. The loss
    is the quantizer's whole loss. Our "lfq" has the bits of an index in the other order, the first channel's the
    lowest: nothing is kept.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_lfq"
    classes: ClassVar[tuple[str, ...]] = ("LFQ",)

    @classmethod
    def read(cls, original: Any) -> Place:
        axis = 1 if original.channel_first else -1
        return Place(original.dim, original.codebook_size, axis, **_codebooks(original, original.codebook_dim))

    def forward(
        self,
        x: Tensor,
        inv_temperature: float = 100.0,
        return_loss_breakdown: bool = False,
        mask: Tensor | None = None,
    ) -> LFQOutput:
        """As above. Raises: ValueError for a temperature (an option of ours) or a breakdown of the loss."""
        refuse_arguments(
            {"inv_temperature": inv_temperature, "return_loss_breakdown": return_loss_breakdown},
            {"inv_temperature": (100,), "return_loss_breakdown": (False,)},
        )
        of_map = x.ndim >= 4 and self._goes_by_axes
        quantized, indices, loss = self.quantizer(x.movedim(1, -1) if of_map else x, mask)
        return LFQOutput(
            quantized.movedim(-1, 1) if of_map else quantized, with_codebook_axis(self, indices), loss
        )

    @property
    def _goes_by_axes(self) -> bool:
        return getattr(self.original, "channel_first", None) is None

    def indices_to_codes(self, indices: Tensor, project_out: bool = True) -> Tensor:
        """The vectors of indices, the channels where x has them. Raises: ValueError for project_out=False."""
        if not project_out:
            raise ValueError("project_out is False, expected True: the vectors as the model gets them")
        return decoded(self, indices, self._goes_by_axes)


def with_codebook_axis(adapter: PackageAdapter, indices: Tensor) -> Tensor:
    """Indices with an axis for the codebooks where the original has one."""
    return indices[..., None] if _has_codebook_axis(adapter) else indices


def decoded(adapter: PackageAdapter, indices: Tensor, by_axes: bool) -> Tensor:
    """The vectors of indices; where the layout goes by the number of axes, of maps the channels are on axis 1."""
    if _has_codebook_axis(adapter):
        indices = indices[..., 0]
    of_map = by_axes and adapter.quantizer.channel_dim == -1 and indices.ndim - adapter.quantizer.composed >= 3
    vectors = adapter._decoded(indices)
    return vectors.movedim(-1, 1) if of_map else vectors


def _has_codebook_axis(adapter: PackageAdapter) -> bool:
    return getattr(adapter.original, "keep_num_codebooks_dim", False) and not adapter.quantizer.composed


def _codebooks(original: Any, width: int) -> dict[str, Any]:
    """The groups of a Place for the original's codebooks, `width` channels each; none for one codebook."""
    return {"groups": original.num_codebooks, "group_dim": width} if original.num_codebooks > 1 else {}


def _refuse_other_grids(original: Any) -> None:
    refuse(
        f"{type(original).__name__}, whose codes are to be kept,",
        preserve_symmetry=original.preserve_symmetry,
        bound_hard_clamp=original.bound_hard_clamp,
        orthogonal_rotation=original.orthogonal_rotation,
    )
