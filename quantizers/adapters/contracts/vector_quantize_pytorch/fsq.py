"""FSQ of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import groups_of
from quantizers.adapters.bases.grid import check_grid, grid_codes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.codebook_axis import (
    decode_by_axes,
    group_options,
    with_codebook_axis,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    WithoutLossAdapter,
    copy_projections,
    refuse,
)
from quantizers.core.base import Quantizer
from quantizers.kernels.common.vectors import integers
from quantizers.kernels.levels.digits import round_bounded
from quantizers.scalar.fsq import FSQ


class FSQAdapter(WithoutLossAdapter):
    """Replaces FSQ of vector-quantize-pytorch (tested with 1.32).

    x [B, N, dim] → (quantized [B, N, dim], indices [B, N]); the indices are None if the original has
    return_indices=False.

    With four axes or more, or with `channel_first`, x is [B, dim, ...] and indices are [B, ...]. Indices are
    int64; the original's are int32. With `keep_num_codebooks_dim` they have one more axis, and with
    `num_codebooks` one of that length: a quantizer for each codebook ("grouped"). The contract has no loss. To
    train a quantizer that has one, add the attribute `loss`, that of the last forward.

    A new "fsq" gets the original's levels. With `keep_codebook` the projections are copied; codes and indices are
    then the original's, except where a channel is within rounding of the edge between two levels.

    Not supported with `keep_codebook`: `preserve_symmetry`, `bound_hard_clamp`, `orthogonal_rotation`.

    Source: `vector_quantize_pytorch/finite_scalar_quantization.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_fsq"
    classes: ClassVar[tuple[str, ...]] = ("FSQ",)
    reference: ClassVar[str] = "fsq"
    omitted_methods: ClassVar[tuple[str, ...]] = (
        "bound",
        "indices_to_level_indices",
        "maybe_apply_noise",
        "quantize",
        "symmetry_preserving_bound",
    )

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if hasattr(original, "show_usage"):
            raise TypeError("it has show_usage, like GigaTok's class of this name")
        return cls._read_sizes(original)

    @classmethod
    def _read_sizes(cls, original: Any) -> QuantizerSpec:
        levels = tuple(original._levels.tolist())
        size = int(original._levels.long().prod())
        axis = 1 if original.channel_first else -1
        return QuantizerSpec(
            original.dim, size, axis, options={"levels": levels}, **group_options(original, len(levels))
        )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        if out[1] is not None:
            yield "indices_to_codes", module.indices_to_codes(out[1])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """FSQ's grid, [K, channels]. Raises: ValueError if it is not the grid of this library."""
        _refuse_other_grids(original)
        return grid_codes(original._levels.long())

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        _refuse_other_grids(original)
        levels = tuple(original._levels.tolist())
        count = original.num_codebooks
        for group in groups_of(quantizer, count) if count > 1 else [quantizer]:
            check_grid(group, levels, "tanh")
        copy_projections(original, quantizer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the class."""
        is_map = x.ndim >= 4 and self.quantizer.channel_dim == -1
        quantized, indices = self._quantize(x.movedim(1, -1) if is_map else x)
        returned = with_codebook_axis(self, indices) if getattr(self.original, "return_indices", True) else None
        return quantized.movedim(-1, 1) if is_map else quantized, returned

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The vectors of indices; for maps [B, H, W] the channels are on axis 1."""
        return decode_by_axes(self, indices, by_axes=True)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """The indices [...] of codes [..., channels] that are on the grid.

        Raises: ValueError for another quantizer than FSQ.
        """
        grid = self._grid
        if not isinstance(grid, FSQ):
            raise ValueError(
                f"quantizer is {type(grid).__name__}, expected FSQ, whose grid codes_to_indices needs"
            )
        return round_bounded(codes, integers(grid.level_counts, codes.device))[1]

    @property
    def implicit_codebook(self) -> Tensor:
        """All codes, [K, channels]; with several codebooks those of the first, as all have the same codes."""
        return self._grid.codebook

    @property
    def _grid(self) -> Quantizer:
        return self.quantizer.groups[0] if getattr(self.original, "num_codebooks", 1) > 1 else self.quantizer


def _refuse_other_grids(original: Any) -> None:
    settings = ("preserve_symmetry", "bound_hard_clamp", "orthogonal_rotation")  # which older versions lack
    given = {name: getattr(original, name, False) for name in settings}
    refuse(f"{type(original).__name__}, with keep_codebook=True,", **given)
