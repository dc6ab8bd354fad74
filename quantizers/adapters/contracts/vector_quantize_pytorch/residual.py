"""ResidualVQ, ResidualSimVQ and ResidualFSQ of vector-quantize-pytorch."""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Place, as_residual, stages_of
from quantizers.adapters.bases.stages import quantize_by_stage
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    PackageAdapter,
    WithoutLossAdapter,
    frozen_if,
    keep_projections,
    refuse,
    refuse_arguments,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.single import (
    channel_axis,
    keep_codes,
    keep_simvq,
    keeps_still,
    simvq_settings,
    trained_codes,
    trained_simvq_codes,
    unmasked,
    vector_quantize_settings,
    warn_of_training,
)
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.gradients import exact_value

FORWARD_DEFAULTS: dict[str, tuple[object, ...]] = {"indices": (None,), "sample_codebook_temp": (None, 0)}
"""Arguments of the original's forward, each with the values that ask for nothing."""


class _StagesAdapter(PackageAdapter):
    """What the residual quantizers have in common: their stages' codes."""

    has_stages: ClassVar[bool] = True

    @property
    def num_quantizers(self) -> int:
        """How many stages there are."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K, of the first stage."""
        return self.codebook_sizes[0]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each stage."""
        return self.quantizer.codebook_sizes

    @property
    def codebooks(self) -> Tensor | tuple[Tensor, ...]:
        """All codes, [num_quantizers, K, channels]; of stages that differ in size one tensor each."""
        if len(set(self.codebook_sizes)) > 1:
            return tuple(stage.codebook for stage in self.quantizer.stages)
        return self.quantizer.codebook

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """What each stage adds, before it is projected: [stages, ..., channels], the channels as in the output of
        `get_output_from_indices`.

        Args: indices: [..., n], of the first n stages. −1 adds zero.

        Raises: ValueError for a quantizer whose codes are not a sum over stages.
        """
        residual = as_residual(
            self.quantizer,
            f"{type(self.quantizer).__name__} has no codes of single stages; expected get_output_from_indices",
        )
        codes = residual.decode_stages(indices).to(self.dtype)
        return codes.movedim(-1, 2) if self._decodes_channels_first else codes

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors of indices [..., n]; the channels are last also of maps, as the original's are."""
        vectors = self._decoded(indices)
        return vectors if self._decodes_channels_first else vectors.movedim(self.quantizer.channel_dim, -1)

    @property
    def _decodes_channels_first(self) -> bool:
        """ResidualSimVQ alone does, with `channel_first`."""
        return bool(getattr(self.original, "channel_first", False))

    def _with_losses(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The forward's outputs, the losses of the stages one by one."""
        quantized, indices, losses = quantize_by_stage(self.quantizer, x, mask)
        if not self.quantizer.truncatable:
            losses = torch.cat([losses, losses.new_zeros(self.num_quantizers - 1)])
        return quantized, indices, losses


class ResidualVQAdapter(_StagesAdapter):
    """`ResidualVQ` and `ResidualSimVQ`: x [B, N, dim] → (quantized, indices [B, N, q], losses [q]).

    Also maps [B, dim, ...] with `accept_image_fmap` or `channel_first`, with indices [B, ..., q]. With
    return_all_codes a fourth, [q, B, N, channels]. mask [B, N] bool. A quantizer that has no losses of single
    stages (QINCo) gives the sum in the first place and zeros in the others.

    The stages of GroupedResidualVQ are such modules, each a place of its own: `at=["rvqs.0", "rvqs.1"]`.

    Kept with the codebook: the projections and of each stage what VectorQuantize and SimVQ keep. Training goes on
    with the gradients of ResidualQuantizer. They follow the chain rule; the original holds the residual constant
    (but with `quant_grad_frac=1`), so that x gets the decoder's gradient once from each stage.

    **Beams** are searched in evaluation, `eval_beam_size` or the forward's `beam_size` wide; training takes the
    nearest code of each stage, and losses are those of these codes in either mode. Our search compares the
    distance of the whole sum, and the original the sum of the distances that each stage leaves: with
    `keep_codebook` it may choose other codes than the original's, as a warning says, and none whose value is
    farther away than that of the nearest code of each stage.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVQ", "ResidualSimVQ")

    def __init__(self, quantizer: Quantizer, original: Any) -> None:
        super().__init__(quantizer, original)
        self._beam_width(None, training=False)  # raises for a quantizer without a beam search

    @classmethod
    def read(cls, original: Any) -> Place:
        first, count = original.layers[0], original.num_quantizers
        options = _dropout(original)
        if _is_simvq(original):
            size, dim = trained_simvq_codes(first).shape
            axis = 1 if original.channel_first else -1
            return Place(dim, size, axis, count, options, simvq_settings(first))
        projects = original.has_projections
        weights = original.beam_score_weights.tolist()
        refuse(type(original).__name__, beam_score_quantizer_weights=None if set(weights) == {1.0} else weights)
        sizes = original.codebook_sizes
        own, kept = vector_quantize_settings(first)
        options.update(own, stage_dim=original.codebook_dim)
        if original.shared_codebook:
            options["shared"] = True
        return Place(
            original.project_in.in_features if projects else original.codebook_dim,
            sizes[0] if original.uniform_codebook_size else sizes, channel_axis(first), count, options, kept,
        )  # fmt: skip

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        codes = trained_simvq_codes if _is_simvq(original) else trained_codes
        if not getattr(original, "uniform_codebook_size", True):
            raise ValueError(
                f"the codebooks have {original.codebook_sizes} codes: read those of .layers, one by one"
            )
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
        if _is_simvq(original):
            return
        keep_projections(original, quantizer)
        warn_of_training(original.layers[0])
        if keeps_still(original.layers[0]):
            quantizer.freeze()
        if (original.eval_beam_size or 1) > 1:
            warnings.warn(
                f"{type(original).__name__} has eval_beam_size={original.eval_beam_size}. Its codes are kept, and "
                "our beam search, which compares the distance of the whole sum, may choose others of them than "
                "the original's, which adds up the distances that each stage leaves.",
                stacklevel=2,
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        indices: None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
        *,
        freeze_codebook: bool = False,
        beam_size: int | None = None,
        **others: object,
    ) -> tuple[Tensor, ...]:
        """As above. With `freeze_codebook` the codes stay as they are in a forward in training; False leaves that
        as it is; for a graph without breaks call `quantizer.freeze()` before. Stages drop out by PyTorch's
        generator, and the seed is not used.

        Raises: ValueError for beams in training, and any other argument of the original that is set.
        """
        refuse_arguments({"indices": indices, **others}, FORWARD_DEFAULTS)
        width = self._beam_width(beam_size, self.training)
        with frozen_if(self.quantizer, freeze_codebook or None):
            quantized, found, losses = self._with_losses(x, mask)
        if width > 1:
            quantized, found = self._improved(x, mask, quantized, width)
        outputs = unmasked(self, quantized, x, mask), found, losses
        return (*outputs, self.get_codes_from_indices(found)) if return_all_codes else outputs

    def _beam_width(self, beam_size: int | None, training: bool) -> int:
        """Of the search in this forward. Raises: ValueError where there is none."""
        usual = None if training else getattr(self.original, "eval_beam_size", None)
        width = (usual if beam_size is None else beam_size) or 1
        if width > 1 and training:
            raise ValueError(
                f"forward has beam_size={beam_size}, which this contract does not keep in training; expected "
                "none: beams are searched in evaluation"
            )
        if width > 1:
            self._with_beams(width)  # raises before any state moves
        return width

    def _with_beams(self, width: int) -> ResidualQuantizer:
        return as_residual(
            self.quantizer,
            f"the beam search is {width} wide, and quantizer is {type(self.quantizer).__name__}, expected a "
            "ResidualQuantizer",
        )

    def _improved(self, x: Tensor, mask: Tensor | None, greedy: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """What a beam search finds, with the gradient of the nearest codes of each stage; NaN stays NaN."""
        indices = self._with_beams(width).encode(x, mask, beam_width=width)
        has_code = (indices >= 0).any(-1).unsqueeze(self.quantizer.channel_dim)
        found = self.quantizer.decode(indices).to(greedy.dtype)
        return exact_value(greedy, found.where(has_code, greedy)), indices


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


class ResidualLFQAdapter(_StagesAdapter):
    """`ResidualLFQ`: x [B, N, dim] → (quantized, indices [B, N, q], losses [q]), with return_all_codes a fourth.

    With four axes or more x is [B, dim, ...], with indices [B, ..., q]. mask [B, N] bool: masked vectors get
    index −1 and zero, where the original has codes for them. A new "lfq" or "bsq" gets the original's scales, each
    half of the one before. Our "lfq" has the bits of an index in the other order, the first channel's the lowest:
    nothing is kept.

    The stages of GroupedResidualLFQ are such modules, each a place of its own: `at=["rvqs.0", "rvqs.1"]`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual_lfq"
    classes: ClassVar[tuple[str, ...]] = ("ResidualLFQ",)

    @classmethod
    def read(cls, original: Any) -> Place:
        first = original.layers[0]
        count = first.num_codebooks
        refuse(type(original).__name__, num_codebooks=count if count > 1 else None)
        dim = original.project_in.in_features if original.has_projections else first.dim
        scales = tuple(layer.codebook_scale for layer in original.layers)
        options = {"stage_dim": first.dim, "scales": scales, **_dropout(original)}
        axis = 1 if first.channel_first else -1
        return Place(dim, first.codebook_size, axis, original.num_quantizers, options)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """As above; the seed is not used."""
        layers = getattr(self.original, "layers", (None,))
        by_axes = getattr(layers[0], "channel_first", None) is None
        of_map = x.ndim >= 4 and self.quantizer.channel_dim == -1 and by_axes
        quantized, indices, losses = self._with_losses(x.movedim(1, -1) if of_map else x, mask)
        outputs = quantized.movedim(-1, 1) if of_map else quantized, indices, losses
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
