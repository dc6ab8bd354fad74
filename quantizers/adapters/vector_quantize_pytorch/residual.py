"""ResidualVQ, ResidualSimVQ and ResidualFSQ of vector-quantize-pytorch."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.adapter import Place, stages_of
from quantizers.adapters.vector_quantize_pytorch.common import (
    PackageAdapter,
    WithoutLossAdapter,
    keep_projections,
    refuse,
)
from quantizers.adapters.vector_quantize_pytorch.single import (
    channel_axis,
    keep_codes,
    keep_simvq,
    simvq_settings,
    trained_codes,
    trained_simvq_codes,
    unmasked,
    vector_quantize_settings,
)
from quantizers.base import Quantizer
from quantizers.residual import ResidualQuantizer


class _StagesAdapter(PackageAdapter):
    """What the residual quantizers have in common: their stages' codes."""

    has_stages: ClassVar[bool] = True

    @property
    def num_quantizers(self) -> int:
        """How many stages there are."""
        return self.quantizer.num_codebooks

    @property
    def codebooks(self) -> Tensor:
        """All codes, [num_quantizers, K, channels]."""
        return self.quantizer.codebook

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """What each stage adds, before it is projected: [stages, ..., channels], the channels as in the output of
        `get_output_from_indices`.

        Args: indices: [..., n], of the first n stages. −1 adds zero.

        Raises: ValueError for a quantizer whose codes are not a sum over stages.
        """
        if not isinstance(self.quantizer, ResidualQuantizer):
            raise ValueError(
                f"{type(self.quantizer).__name__} has no codes of single stages; expected get_output_from_indices"
            )
        codes = self.quantizer.decode_stages(indices).to(self.dtype)
        return codes.movedim(-1, 2) if self._decodes_channels_first else codes

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors of indices [..., n]; the channels are last also of maps, as the original's are."""
        vectors = self._decoded(indices)
        return vectors if self._decodes_channels_first else vectors.movedim(self.quantizer.channel_dim, -1)

    @property
    def _decodes_channels_first(self) -> bool:
        """ResidualSimVQ alone does, with `channel_first`."""
        return bool(getattr(self.original, "channel_first", False))


class ResidualVQAdapter(_StagesAdapter):
    """`ResidualVQ` and `ResidualSimVQ`: x [B, N, dim] → (quantized, indices [B, N, q], losses [q]).

    Also maps [B, dim, ...] with `accept_image_fmap` or `channel_first`, with indices [B, ..., q]. With
    return_all_codes a fourth, [q, B, N, channels]. mask [B, N] bool. A quantizer that has no losses of single
    stages (QINCo) gives the sum in the first place and zeros in the others.

    The stages of GroupedResidualVQ are such modules, each a place of its own: `at=["rvqs.0", "rvqs.1"]`.

    Kept with the codebook: the projections and of each stage what VectorQuantize and SimVQ keep. Training goes on
    with the gradients of ResidualQuantizer. They follow the chain rule; the original holds the residual constant
    (but with `quant_grad_frac=1`), so that x gets the decoder's gradient once from each stage.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVQ", "ResidualSimVQ")

    @classmethod
    def read(cls, original: Any) -> Place:
        first, count = original.layers[0], original.num_quantizers
        options = _dropout(original)
        if _is_simvq(original):
            size, dim = trained_simvq_codes(first).shape
            axis = 1 if original.channel_first else -1
            return Place(dim, size, axis, count, options, simvq_settings(first))
        projects = original.has_projections
        refuse(
            type(original).__name__,
            beam_size=original.beam_size if (original.beam_size or 1) > 1 else None,
            codebook_sizes=None if original.uniform_codebook_size else original.codebook_sizes,
        )
        own, kept = vector_quantize_settings(first)
        options.update(own, stage_dim=original.codebook_dim)
        if original.shared_codebook:
            options["shared"] = True
        return Place(
            original.project_in.in_features if projects else original.codebook_dim,
            original.codebook_size, channel_axis(first), count, options, kept,
        )  # fmt: skip

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes = trained_simvq_codes if _is_simvq(original) else trained_codes
        return torch.stack([codes(layer) for layer in original.layers])

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        if not _is_simvq(original):
            refuse(
                f"{type(original).__name__}, whose codes are to be kept,",
                implicit_neural_codebook=original.implicit_neural_codebook,
                diveq=original.diveq,
            )
        keep = keep_simvq if _is_simvq(original) else keep_codes
        shared = getattr(original, "shared_codebook", False)
        parts = stages_of(quantizer, len(original.layers), shared=shared)
        for part, layer in zip(parts, original.layers, strict=True):
            keep(layer, part)
        if not _is_simvq(original):
            keep_projections(original, quantizer)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        indices: None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
        **others: object,
    ) -> tuple[Tensor, ...]:
        """As above. Stages drop out by PyTorch's generator, and the seed is not used.

        Raises: ValueError for any other argument of the original that is set.
        """
        refuse("forward", indices=indices, **others)
        quantized, found, losses = self._with_losses(x, mask)
        outputs = unmasked(self, quantized, x, mask), found, losses
        return (*outputs, self.get_codes_from_indices(found)) if return_all_codes else outputs

    def _with_losses(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.quantizer, ResidualQuantizer):
            return self.quantizer.forward_stages(x, mask)
        quantized, indices, loss = self.quantizer(x, mask)
        return quantized, indices, torch.cat([loss[None], loss.new_zeros(self.num_quantizers - 1)])


class ResidualFSQAdapter(_StagesAdapter, WithoutLossAdapter):
    """`ResidualFSQ`: x [B, N, dim] → (quantized, indices [B, N, q]), with return_all_codes a third.

    With `is_channel_first` [B, dim, ...] → indices [B, q, ...], as the original has them; codes and outputs are
    found from indices [..., q]. The contract has no loss; `loss` is that of the last forward. A new "fsq" gets the
    original's levels, on the grids of "residual_fsq", which differ from the original's: nothing is kept.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual_fsq"
    classes: ClassVar[tuple[str, ...]] = ("ResidualFSQ",)

    @classmethod
    def read(cls, original: Any) -> Place:
        levels = tuple(original.layers[0]._levels.tolist())
        dim = original.project_in.in_features if original.has_projections else len(levels)
        axis = 1 if original.is_channel_first else -1
        options = {"levels": levels, **_dropout(original)}
        return Place(dim, original.codebook_size, axis, original.num_quantizers, options)

    def forward(
        self, x: Tensor, return_all_codes: bool = False, rand_quantize_dropout_fixed_seed: int | None = None
    ) -> tuple[Tensor, ...]:
        """As above; the seed is not used."""
        quantized, indices = self._quantize(x)
        outputs = quantized, indices.movedim(-1, self.quantizer.channel_dim)
        return (*outputs, self.get_codes_from_indices(indices)) if return_all_codes else outputs


def _is_simvq(original: Any) -> bool:
    return hasattr(original.layers[0], "frozen_codebook")


def _dropout(original: Any) -> dict[str, Any]:
    """The original drops stages out in each batch, and keeps the first 1 to all of them."""
    if not original.quantize_dropout:
        return {}
    multiple = original.quantize_dropout_multiple_of
    refuse(
        type(original).__name__,
        quantize_dropout_cutoff_index=original.quantize_dropout_cutoff_index,
        quantize_dropout_multiple_of=multiple if multiple > 1 else None,
    )
    return {"dropout": 1.0, "dropout_by": "batch"}
