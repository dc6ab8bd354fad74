"""A base for the residual quantizers of vector-quantize-pytorch."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import as_residual
from quantizers.adapters.bases.stages import quantize_by_stage
from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter, refuse
from quantizers.composite.residual import ResidualQuantizer


class ResidualAdapter(PackageAdapter):
    """Has the attributes of the residual quantizers and the methods that return the codes of stages."""

    has_stages: ClassVar[bool] = True

    @property
    def num_quantizers(self) -> int:
        """The number of codebooks."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K of the first codebook."""
        return self.codebook_sizes[0]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return self.quantizer.codebook_sizes

    @property
    def codebooks(self) -> Tensor | tuple[Tensor, ...]:
        """All codes, [num_quantizers, K, channels]; one tensor per stage if the stages differ in size."""
        if len(set(self.codebook_sizes)) > 1:
            return tuple(stage.codebook for stage in self.quantizer.stages)
        return self.quantizer.codebook

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """The vector that each stage adds, before it is projected: [stages, ..., channels], the channels as in
        the output of `get_output_from_indices`.

        Args:
            indices: [..., n], of the first n codebooks. Index −1 adds zero.

        Raises: ValueError for a quantizer whose codes are not a sum over stages.
        """
        residual = as_residual(
            self.quantizer,
            f"{type(self.quantizer).__name__} has no codes of single stages; use get_output_from_indices",
        )
        codes = residual.decode_stages(indices).to(self.dtype)
        return codes.movedim(-1, 2) if self._decodes_channels_first else codes

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors of indices [..., n]; the channels are last, also for maps, as in the original."""
        vectors = self._decode_indices(indices)
        return vectors if self._decodes_channels_first else vectors.movedim(self.quantizer.channel_dim, -1)

    @property
    def _decodes_channels_first(self) -> bool:
        """Whether decoded vectors have their channels on axis 1: only for ResidualSimVQ with `channel_first`."""
        return bool(getattr(self.original, "channel_first", False))

    def _with_losses(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the quantizer's forward, with the loss of each stage."""
        quantized, indices, losses = quantize_by_stage(self.quantizer, x, mask)
        if not isinstance(self.quantizer, ResidualQuantizer):
            losses = torch.cat([losses, losses.new_zeros(self.num_quantizers - 1)])
        return quantized, indices, losses


def dropout_options(original: Any) -> dict[str, Any]:
    """The original drops out stages of a whole batch, and uses at least the first one."""
    if not original.quantize_dropout:
        return {}
    multiple = original.quantize_dropout_multiple_of
    refuse(
        type(original).__name__,
        quantize_dropout_cutoff_index=original.quantize_dropout_cutoff_index,
        quantize_dropout_multiple_of=multiple if multiple > 1 else None,
    )
    return {"dropout": 1.0, "dropout_by": "batch"}
